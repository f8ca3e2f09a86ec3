"""Tables about requests, not runs; tables.py puts them beside its own."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)


def add_request_tables(metadata: MetaData) -> None:
    """Declare them, as the migrations leave them."""
    idempotency = Table(
        "idempotency",
        metadata,
        Column("tenant_id", Uuid, nullable=False),
        Column("key_digest", LargeBinary, nullable=False),
        Column("request_digest", LargeBinary),
        Column("run_id", Uuid),
        Column("status", SmallInteger),
        Column("told", Text),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        PrimaryKeyConstraint("tenant_id", "key_digest", name="pk_idempotency"),
        ForeignKeyConstraint(
            ["tenant_id"], ["tenants.tenant_id"], name="fk_idempotency_tenant", ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["runs.tenant_id", "runs.run_id"],
            name="fk_idempotency_run",
            ondelete="CASCADE",
        ),
        CheckConstraint("octet_length(key_digest) = 32", name="ck_idempotency_key"),
        CheckConstraint("octet_length(request_digest) = 32", name="ck_idempotency_request"),
        CheckConstraint("status BETWEEN 200 AND 599", name="ck_idempotency_status"),
        CheckConstraint("told ~ '^[a-z0-9_.:]{1,64}$'", name="ck_idempotency_told"),
    )
    Index(
        "ix_idempotency_run",
        idempotency.c.tenant_id,
        idempotency.c.run_id,
        postgresql_where=text("run_id IS NOT NULL"),
    )
    Index("ix_idempotency_created", idempotency.c.created_at)
