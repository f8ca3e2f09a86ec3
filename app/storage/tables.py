"""Every table, as the migrations leave it; a test compares the two."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.types import UserDefinedType

from app.storage.approval_tables import add_approval_tables
from app.storage.policy_tables import add_policy_tables
from app.storage.request_tables import add_request_tables
from app.storage.run_tables import add_run_tables
from app.storage.webhook_tables import add_webhook_tables

METADATA = MetaData()
_NOW = text("now()")
_ENDED = "'succeeded','failed','blocked','cancelled','expired','interrupted'"


class Xid8(UserDefinedType[int]):
    """A 64-bit transaction id of Postgres."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """The type's name in DDL."""
        return "xid8"


def _moment(name: str, *, nullable: bool = False, now: bool = False) -> Column[object]:
    default = _NOW if now else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


def _ids(*names: str) -> list[Column[object]]:
    return [Column(name, Uuid, nullable=False) for name in names]


tenants = Table(
    "tenants",
    METADATA,
    Column("tenant_id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    Column("name", Text, nullable=False),
    _moment("created_at", now=True),
    Column("halted", Text),
    PrimaryKeyConstraint("tenant_id", name="pk_tenants"),
    UniqueConstraint("name", name="uq_tenants_name"),
)
Index("ix_tenants_halted", tenants.c.tenant_id, postgresql_where=text("halted IS NOT NULL"))

writer_key = Table(
    "writer_key",
    METADATA,
    *_ids("writer_id"),
    Column("public_key", LargeBinary, nullable=False),
    _moment("created_at", now=True),
    _moment("seen_at", now=True),
    Column("certificate", LargeBinary),
    _moment("retired_at", nullable=True),
    Column("retired_xid", Xid8),
    Column("retirement_seq", BigInteger),
    PrimaryKeyConstraint("writer_id", name="pk_writer_key"),
    CheckConstraint("octet_length(public_key) = 32", name="ck_writer_key_length"),
    CheckConstraint("octet_length(certificate) = 64", name="ck_writer_key_certificate"),
)

runs = Table(
    "runs",
    METADATA,
    *_ids("tenant_id", "run_id"),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("owner", Uuid, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("agent", Text),
    Column("policy_digest", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("output_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("cost_micros", BigInteger, nullable=False, server_default=text("0")),
    Column("steps", Integer, nullable=False, server_default=text("0")),
    Column("entries", BigInteger),
    Column("error_code", Text),
    _moment("created_at"),
    _moment("finished_at", nullable=True),
    PrimaryKeyConstraint("tenant_id", "run_id", name="pk_runs"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_runs_tenant"),
)
Index(
    "ix_runs_open",
    runs.c.owner,
    runs.c.tenant_id,
    runs.c.run_id,
    postgresql_where=text(f"status NOT IN ({_ENDED})"),
)

Index("uq_runs_admin", runs.c.tenant_id, unique=True, postgresql_where=text("kind = 'admin'"))

run_command = Table(
    "run_command",
    METADATA,
    *_ids("tenant_id", "run_id", "command_id"),
    Column("command", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _moment("created_at", now=True),
    PrimaryKeyConstraint("tenant_id", "run_id", "command_id", name="pk_run_command"),
    ForeignKeyConstraint(
        ["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="fk_run_command_run"
    ),
    CheckConstraint("command IN ('cancel')", name="ck_run_command_command"),
)
Index("ix_run_command_created", run_command.c.created_at)

run_result = Table(
    "run_result",
    METADATA,
    *_ids("tenant_id", "run_id"),
    Column("kek_id", Text, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("blob", LargeBinary, nullable=False),
    _moment("expires_at"),
    PrimaryKeyConstraint("tenant_id", "run_id", name="pk_run_result"),
    ForeignKeyConstraint(
        ["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="fk_run_result_run"
    ),
)

run_work = Table(
    "run_work",
    METADATA,
    *_ids("tenant_id", "run_id"),
    Column("seq", BigInteger, nullable=False),
    Column("kek_id", Text),
    Column("wrapped", LargeBinary),
    Column("blob", LargeBinary),
    PrimaryKeyConstraint("tenant_id", "run_id", "seq", name="pk_run_work"),
    ForeignKeyConstraint(
        ["tenant_id", "run_id"],
        ["runs.tenant_id", "runs.run_id"],
        name="fk_run_work_run",
        ondelete="CASCADE",
    ),
    CheckConstraint("(seq = 0) = (kek_id IS NOT NULL)", name="ck_run_work_key"),
    CheckConstraint("seq = 0 OR blob IS NOT NULL", name="ck_run_work_blob"),
)
Index("ix_run_work_kek", run_work.c.kek_id, postgresql_where=text("kek_id IS NOT NULL"))

record = Table(
    "record",
    METADATA,
    *_ids("tenant_id", "run_id"),
    Column("seq", BigInteger, nullable=False),
    Column("epoch", BigInteger),
    Column("kind", Text),
    _moment("ts", nullable=True),
    Column("header", LargeBinary),
    Column("rc", LargeBinary, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    *_ids("batch_id"),
    PrimaryKeyConstraint("tenant_id", "run_id", "seq", name="pk_record"),
    CheckConstraint("octet_length(rc) = 32", name="ck_record_rc"),
    CheckConstraint("octet_length(chain) = 32", name="ck_record_chain"),
    CheckConstraint("seq >= 0", name="ck_record_seq"),
    postgresql_partition_by="LIST (tenant_id)",
)

payload = Table(
    "payload",
    METADATA,
    *_ids("tenant_id", "run_id"),
    Column("seq", BigInteger, nullable=False),
    Column("field", SmallInteger, nullable=False),
    Column("blob", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant_id", "run_id", "seq", "field", name="pk_payload"),
    postgresql_partition_by="LIST (tenant_id)",
)

batch = Table(
    "batch",
    METADATA,
    *_ids("tenant_id", "batch_id"),
    Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    *_ids("writer_id"),
    Column("n", Integer, nullable=False),
    Column("ranges", LargeBinary, nullable=False),
    Column("tip", LargeBinary, nullable=False),
    Column("sig", LargeBinary, nullable=False),
    Column("entries", LargeBinary),
    PrimaryKeyConstraint("tenant_id", "batch_id", name="pk_batch"),
    CheckConstraint("octet_length(tip) = 32", name="ck_batch_tip"),
    CheckConstraint("octet_length(sig) = 64", name="ck_batch_sig"),
)
Index("ix_batch_xid", batch.c.xid)

run_key = Table(
    "run_key",
    METADATA,
    *_ids("tenant_id", "run_id"),
    Column("kek_id", Text, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant_id", "run_id", name="pk_run_key"),
)

leaf = Table(
    "leaf",
    METADATA,
    *_ids("tenant_id"),
    Column("idx", BigInteger, nullable=False),
    *_ids("run_id"),
    Column("seq", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", "idx", name="pk_leaf"),
    UniqueConstraint("tenant_id", "run_id", "seq", name="uq_leaf_record"),
    CheckConstraint("idx >= 0", name="ck_leaf_idx"),
    postgresql_partition_by="LIST (tenant_id)",
)

tile = Table(
    "tile",
    METADATA,
    *_ids("tenant_id"),
    Column("level", SmallInteger, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant_id", "level", "n", name="pk_tile"),
    CheckConstraint(
        "octet_length(data) BETWEEN 32 AND 8192 AND octet_length(data) % 32 = 0",
        name="ck_tile_data",
    ),
    postgresql_partition_by="LIST (tenant_id)",
)

log_head = Table(
    "log_head",
    METADATA,
    *_ids("tenant_id"),
    Column("origin", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("recovery", Integer, nullable=False, server_default=text("0")),
    _moment("integrated_at"),
    PrimaryKeyConstraint("tenant_id", name="pk_log_head"),
    CheckConstraint("octet_length(root) = 32", name="ck_log_head_root"),
    CheckConstraint("size >= 0", name="ck_log_head_size"),
)

checkpoint = Table(
    "checkpoint",
    METADATA,
    *_ids("tenant_id"),
    Column("origin", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
    _moment("created_at"),
    Column("anchor_run", Uuid),
    Column("anchor_seq", BigInteger),
    PrimaryKeyConstraint("tenant_id", "size", "origin", name="pk_checkpoint"),
    CheckConstraint("octet_length(root) = 32", name="ck_checkpoint_root"),
)

cosignature = Table(
    "cosignature",
    METADATA,
    *_ids("tenant_id"),
    Column("origin", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("witness", Text, nullable=False),
    Column("line", Text, nullable=False),
    _moment("cosigned_at"),
    PrimaryKeyConstraint(
        "tenant_id", "size", "origin", "witness", "cosigned_at", name="pk_cosignature"
    ),
)

left_out = Table(
    "left_out",
    METADATA,
    *_ids("tenant_id", "run_id"),
    Column("seq", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    _moment("found_at", now=True),
    Column("alarm_seq", BigInteger),
    PrimaryKeyConstraint("tenant_id", "run_id", name="pk_left_out"),
)

sequencer_state = Table(
    "sequencer_state",
    METADATA,
    *_ids("tenant_id"),
    Column("term", BigInteger, nullable=False),
    Column("system_identifier", Text, nullable=False),
    Column("xid", Xid8, nullable=False),
    _moment("beaten_at"),
    PrimaryKeyConstraint("tenant_id", name="pk_sequencer_state"),
)

erasure = Table(
    "erasure",
    METADATA,
    *_ids("tenant_id", "erasure_id", "log_id"),
    Column("action", Text, nullable=False),
    Column("run_id", Uuid),
    Column("fields", ARRAY(Text)),
    Column("legal_basis", Text, nullable=False),
    Column("request_ref", LargeBinary, nullable=False),
    Column("actor", Text, nullable=False),
    _moment("requested_at"),
    *_ids("writer_id"),
    Column("sig", LargeBinary, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'requested'")),
    _moment("executed_at", nullable=True),
    _moment("due_at", nullable=True),
    _moment("completed_at", nullable=True),
    Column("kek_ids", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("record_run", Uuid),
    Column("record_seq", BigInteger),
    Column("reason", Text),
    PrimaryKeyConstraint("tenant_id", "erasure_id", name="pk_erasure"),
    CheckConstraint(
        "action IN ('anonymize_run', 'delete_run', 'delete_tenant')", name="ck_erasure_action"
    ),
    CheckConstraint(
        "status IN ('requested', 'pending', 'complete', 'refused')", name="ck_erasure_status"
    ),
    CheckConstraint("(run_id IS NULL) = (action = 'delete_tenant')", name="ck_erasure_run"),
    CheckConstraint("octet_length(request_ref) = 32", name="ck_erasure_ref"),
    CheckConstraint("octet_length(sig) = 64", name="ck_erasure_sig"),
)
Index(
    "ix_erasure_open",
    erasure.c.tenant_id,
    erasure.c.erasure_id,
    postgresql_where=text("status IN ('requested', 'pending')"),
)

run_hold = Table(
    "run_hold",
    METADATA,
    *_ids("tenant_id", "run_id"),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _moment("set_at"),
    PrimaryKeyConstraint("tenant_id", "run_id", name="pk_run_hold"),
    ForeignKeyConstraint(
        ["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="fk_run_hold_run"
    ),
)

kek_retirement = Table(
    "kek_retirement",
    METADATA,
    *_ids("tenant_id"),
    Column("kek_id", Text, nullable=False),
    Column("successor", Text),
    _moment("retired_at"),
    _moment("destroyed_at", nullable=True),
    _moment("due_at", nullable=True),
    PrimaryKeyConstraint("tenant_id", "kek_id", name="pk_kek_retirement"),
)

rate_use = Table(
    "rate_use",
    METADATA,
    *_ids("tenant_id"),
    Column("key_ref", Text, nullable=False),
    Column("minute", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", "key_ref", "minute", name="pk_rate_use"),
    ForeignKeyConstraint(
        ["tenant_id"], ["tenants.tenant_id"], name="fk_rate_use_tenant", ondelete="CASCADE"
    ),
    CheckConstraint("key_ref ~ '^[0-9a-f]{16}$'", name="ck_rate_use_key_ref"),
    CheckConstraint("used >= 0", name="ck_rate_use_used"),
    prefixes=["UNLOGGED"],
)

add_request_tables(METADATA)
add_run_tables(METADATA)
add_webhook_tables(METADATA)
add_policy_tables(METADATA)
add_approval_tables(METADATA)
