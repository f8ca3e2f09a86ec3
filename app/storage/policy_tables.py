"""The tables of policies, as migration 0015 leaves them."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)


def add_policy_tables(metadata: MetaData) -> None:
    """Describe both tables among all others."""
    Table(
        "policy_version",
        metadata,
        Column("tenant_id", Uuid, nullable=False),
        Column("policy_id", Text, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("digest", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("author", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("tenant_id", "policy_id", "version", name="pk_policy_version"),
        UniqueConstraint("tenant_id", "digest", name="uq_policy_version_digest"),
        ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.tenant_id"],
            name="fk_policy_version_tenant",
            ondelete="CASCADE",
        ),
        CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name="ck_policy_version_digest"),
        CheckConstraint("digest = encode(sha256(body), 'hex')", name="ck_policy_version_body"),
        CheckConstraint("version > 0", name="ck_policy_version_version"),
    )
    _add_activations(metadata)


def _add_activations(metadata: MetaData) -> None:
    activation = Table(
        "policy_activation",
        metadata,
        Column("tenant_id", Uuid, nullable=False),
        Column("activation_id", Uuid, nullable=False),
        Column("policy_id", Text, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("state", Text, nullable=False),
        Column("needs_second", Boolean, nullable=False),
        Column("loosened", ARRAY(Text), nullable=False),
        Column("requested_by", Text, nullable=False),
        Column("requested_at", DateTime(timezone=True), nullable=False),
        Column("confirmed_by", Text),
        Column("activated_at", DateTime(timezone=True)),
        PrimaryKeyConstraint("tenant_id", "activation_id", name="pk_policy_activation"),
        ForeignKeyConstraint(
            ["tenant_id", "policy_id", "version"],
            ["policy_version.tenant_id", "policy_version.policy_id", "policy_version.version"],
            name="fk_policy_activation_version",
            ondelete="CASCADE",
        ),
        CheckConstraint(
            "state IN ('pending', 'active', 'superseded')", name="ck_policy_activation_state"
        ),
        CheckConstraint(
            "confirmed_by IS NULL OR confirmed_by <> requested_by",
            name="ck_policy_activation_second",
        ),
        CheckConstraint(
            "state <> 'active' OR"
            " (activated_at IS NOT NULL AND (confirmed_by IS NOT NULL OR NOT needs_second))",
            name="ck_policy_activation_active",
        ),
        CheckConstraint(
            "state <> 'pending' OR (activated_at IS NULL AND needs_second)",
            name="ck_policy_activation_pending",
        ),
    )
    columns = activation.c
    place = (columns.tenant_id, columns.policy_id)
    in_force = text("state = 'active'")
    Index("uq_policy_activation_active", *place, unique=True, postgresql_where=in_force)
    Index("ix_policy_activation_log", *place, columns.activation_id)
