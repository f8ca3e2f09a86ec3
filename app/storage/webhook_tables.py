"""The tables of webhooks, as migration 0010 leaves them."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)


def _moments(*names: str, nullable: bool = False) -> list[Column[object]]:
    return [Column(name, DateTime(timezone=True), nullable=nullable) for name in names]


def _ids(*names: str) -> list[Column[object]]:
    return [Column(name, Uuid, nullable=False) for name in names]


def add_webhook_tables(metadata: MetaData) -> None:
    """Describe both tables among all others."""
    Table(
        "webhook_endpoint",
        metadata,
        *_ids("tenant_id", "endpoint_id"),
        Column("events", ARRAY(Text), nullable=False),
        Column("enabled", Boolean, nullable=False),
        Column("reason", Text),
        Column("failing", Boolean, nullable=False, server_default=text("false")),
        Column("version", BigInteger, nullable=False),
        Column("kek_id", Text),
        Column("sealed", LargeBinary),
        *_moments("created_at", "updated_at"),
        *_moments("removed_at", nullable=True),
        PrimaryKeyConstraint("tenant_id", "endpoint_id", name="pk_webhook_endpoint"),
        ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.tenant_id"],
            name="fk_webhook_endpoint_tenant",
            ondelete="CASCADE",
        ),
        CheckConstraint(
            "(sealed IS NULL) = (removed_at IS NOT NULL) AND (kek_id IS NULL) = (sealed IS NULL)",
            name="ck_webhook_endpoint_sealed",
        ),
        CheckConstraint("removed_at IS NULL OR NOT enabled", name="ck_webhook_endpoint_removed"),
    )
    _add_deliveries(metadata)


def _add_deliveries(metadata: MetaData) -> None:
    delivery = Table(
        "webhook_delivery",
        metadata,
        *_ids("tenant_id", "delivery_id", "endpoint_id"),
        Column("run_id", Uuid),
        Column("type", Text, nullable=False),
        Column("body", Text, nullable=False),
        Column("state", Text, nullable=False, server_default=text("'pending'")),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("claim", Uuid),
        *_moments("due_at", "give_up_at", "created_at"),
        *_moments("attempted_at", "ended_at", nullable=True),
        Column("status", Integer),
        Column("error", Text),
        PrimaryKeyConstraint("tenant_id", "delivery_id", name="pk_webhook_delivery"),
        ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            ["webhook_endpoint.tenant_id", "webhook_endpoint.endpoint_id"],
            name="fk_webhook_delivery_endpoint",
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["runs.tenant_id", "runs.run_id"],
            name="fk_webhook_delivery_run",
            ondelete="CASCADE",
        ),
        CheckConstraint(
            "state IN ('pending', 'delivered', 'dead')", name="ck_webhook_delivery_state"
        ),
        CheckConstraint(
            "(ended_at IS NULL) = (state = 'pending')", name="ck_webhook_delivery_ended"
        ),
    )
    pending, columns = text("state = 'pending'"), delivery.c
    place = (columns.tenant_id, columns.endpoint_id)
    Index("ix_webhook_delivery_due", *place, columns.due_at, postgresql_where=pending)
    Index("ix_webhook_delivery_log", *place, columns.delivery_id)
    Index(
        "ix_webhook_delivery_run",
        columns.tenant_id,
        columns.run_id,
        postgresql_where=text("run_id IS NOT NULL"),
    )
    ended = text("state <> 'pending'")
    Index("ix_webhook_delivery_ended", columns.ended_at, postgresql_where=ended)
    Index("ix_webhook_delivery_given_up", columns.give_up_at, postgresql_where=pending)
    dead = text("state = 'dead'")
    Index("ix_webhook_delivery_dead", columns.ended_at, postgresql_where=dead)
