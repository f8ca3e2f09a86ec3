"""Tenants, runs and their fence, commands to runs, results, and the keys that sign."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TENANTS = """
CREATE TABLE tenants (
  tenant_id uuid NOT NULL CONSTRAINT pk_tenants PRIMARY KEY DEFAULT gen_random_uuid(),
  name text NOT NULL CONSTRAINT uq_tenants_name UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now(),
  halted text
)
"""
# Asked at every append: while one log is halted, nothing is written anywhere.
_HALTED = "CREATE INDEX ix_tenants_halted ON tenants (tenant_id) WHERE halted IS NOT NULL"
_WRITER_KEY = """
CREATE TABLE writer_key (
  writer_id uuid NOT NULL CONSTRAINT pk_writer_key PRIMARY KEY,
  public_key bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz NOT NULL DEFAULT now(),
  certificate bytea,
  retired_at timestamptz,
  retired_xid xid8,
  retirement_seq bigint,
  CONSTRAINT ck_writer_key_length CHECK (octet_length(public_key) = 32),
  CONSTRAINT ck_writer_key_certificate CHECK (octet_length(certificate) = 64)
)
"""
_RUNS = """
CREATE TABLE runs (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  kind text NOT NULL,
  status text NOT NULL,
  epoch bigint NOT NULL,
  owner uuid NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  agent text,
  policy_digest text NOT NULL,
  input_tokens bigint NOT NULL DEFAULT 0,
  output_tokens bigint NOT NULL DEFAULT 0,
  cost_micros bigint NOT NULL DEFAULT 0,
  steps integer NOT NULL DEFAULT 0,
  entries bigint,
  error_code text,
  created_at timestamptz NOT NULL,
  finished_at timestamptz,
  CONSTRAINT pk_runs PRIMARY KEY (tenant_id, run_id),
  CONSTRAINT fk_runs_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id)
)
"""
# The sweep looks for runs that nobody drives; those are few, whatever the table's size.
_OPEN_RUNS = """
CREATE INDEX ix_runs_open ON runs (owner, tenant_id, run_id)
WHERE status NOT IN ('succeeded','failed','blocked','cancelled','expired','interrupted')
"""
# One administration run a log.
_ADMIN_RUN = "CREATE UNIQUE INDEX uq_runs_admin ON runs (tenant_id) WHERE kind = 'admin'"
_RUN_COMMAND = """
CREATE TABLE run_command (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  command_id uuid NOT NULL,
  command text NOT NULL,
  actor text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_run_command PRIMARY KEY (tenant_id, run_id, command_id),
  CONSTRAINT fk_run_command_run FOREIGN KEY (tenant_id, run_id)
    REFERENCES runs (tenant_id, run_id),
  CONSTRAINT ck_run_command_command CHECK (command IN ('cancel'))
)
"""
# A heartbeat looks at the newest commands only.
_NEW_COMMANDS = "CREATE INDEX ix_run_command_created ON run_command (created_at)"
_RUN_RESULT = """
CREATE TABLE run_result (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  kek_id text NOT NULL,
  wrapped bytea NOT NULL,
  blob bytea NOT NULL,
  expires_at timestamptz NOT NULL,
  CONSTRAINT pk_run_result PRIMARY KEY (tenant_id, run_id),
  CONSTRAINT fk_run_result_run FOREIGN KEY (tenant_id, run_id)
    REFERENCES runs (tenant_id, run_id)
)
"""


def upgrade() -> None:
    tables = (_TENANTS, _WRITER_KEY, _RUNS, _RUN_COMMAND, _RUN_RESULT)
    for statement in (*tables, _HALTED, _OPEN_RUNS, _ADMIN_RUN, _NEW_COMMANDS):
        op.execute(statement)


def downgrade() -> None:
    for table in ("run_result", "run_command", "runs", "writer_key", "tenants"):
        op.execute(f"DROP TABLE {table}")
