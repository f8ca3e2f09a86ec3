"""The ledger's tables, and triggers that let only lawful erasure touch what was written."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_RECORD = """
CREATE TABLE record (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  seq bigint NOT NULL,
  epoch bigint,
  kind text,
  ts timestamptz,
  header bytea,
  rc bytea NOT NULL,
  chain bytea NOT NULL,
  batch_id uuid NOT NULL,
  CONSTRAINT pk_record PRIMARY KEY (tenant_id, run_id, seq),
  CONSTRAINT ck_record_rc CHECK (octet_length(rc) = 32),
  CONSTRAINT ck_record_chain CHECK (octet_length(chain) = 32),
  CONSTRAINT ck_record_seq CHECK (seq >= 0)
) PARTITION BY LIST (tenant_id)
"""
_PAYLOAD = """
CREATE TABLE payload (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  seq bigint NOT NULL,
  field smallint NOT NULL,
  blob bytea NOT NULL,
  CONSTRAINT pk_payload PRIMARY KEY (tenant_id, run_id, seq, field)
) PARTITION BY LIST (tenant_id)
"""
_BATCH = """
CREATE TABLE batch (
  tenant_id uuid NOT NULL,
  batch_id uuid NOT NULL,
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  writer_id uuid NOT NULL,
  n integer NOT NULL,
  ranges bytea NOT NULL,
  tip bytea NOT NULL,
  sig bytea NOT NULL,
  entries bytea,
  CONSTRAINT pk_batch PRIMARY KEY (tenant_id, batch_id),
  CONSTRAINT ck_batch_tip CHECK (octet_length(tip) = 32),
  CONSTRAINT ck_batch_sig CHECK (octet_length(sig) = 64)
)
"""
_BATCH_XID = "CREATE INDEX ix_batch_xid ON batch (xid)"
_RUN_KEY = """
CREATE TABLE run_key (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  kek_id text NOT NULL,
  wrapped bytea NOT NULL,
  CONSTRAINT pk_run_key PRIMARY KEY (tenant_id, run_id)
)
"""
# Ciphertext does not compress; trying costs time on every row.
_EXTERNAL = "ALTER TABLE payload ALTER COLUMN blob SET STORAGE EXTERNAL"

_DENY = """
CREATE FUNCTION ledger_deny_change() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_user = 'mf_erase_owner' THEN
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'MF004';
END $$
"""
_GUARDED = ("record", "payload", "batch", "run_key")
_PARTITIONED = ("record", "payload")


def upgrade() -> None:
    for statement in (_RECORD, _PAYLOAD, _BATCH, _BATCH_XID, _RUN_KEY, _EXTERNAL, _DENY):
        op.execute(statement)
    for table in _PARTITIONED:
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    for table in _GUARDED:
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION ledger_deny_change()"
        )
        for target in (table, f"{table}_default") if table in _PARTITIONED else (table,):
            op.execute(f"ALTER TABLE {target} ENABLE ALWAYS TRIGGER {table}_no_change")
            op.execute(
                f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {target}"
                " FOR EACH STATEMENT EXECUTE FUNCTION ledger_deny_change()"
            )
            op.execute(f"ALTER TABLE {target} ENABLE ALWAYS TRIGGER {table}_no_truncate")


def downgrade() -> None:
    for table in ("run_key", "batch", "payload", "record"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION ledger_deny_change()")
