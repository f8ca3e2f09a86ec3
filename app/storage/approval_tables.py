"""The table of approvals, as migration 0013 leaves it."""

from sqlalchemy import (
    BigInteger,
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
    Uuid,
)


def add_approval_tables(metadata: MetaData) -> None:
    """Describe it among all others."""
    approval = Table(
        "approval",
        metadata,
        *[Column(name, Uuid, nullable=False) for name in ("tenant_id", "approval_id", "run_id")],
        Column("state", Text, nullable=False),
        Column("digest", LargeBinary, nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False),
        Column("decided_at", DateTime(timezone=True)),
        PrimaryKeyConstraint("tenant_id", "approval_id", name="pk_approval"),
        ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["runs.tenant_id", "runs.run_id"],
            name="fk_approval_run",
            ondelete="CASCADE",
        ),
        CheckConstraint(
            "state IN ('pending', 'approved', 'denied', 'expired', 'void', 'used')",
            name="ck_approval_state",
        ),
        CheckConstraint("octet_length(digest) = 32", name="ck_approval_digest"),
        CheckConstraint("(decided_at IS NULL) = (state = 'pending')", name="ck_approval_decided"),
    )
    columns = approval.c
    Index("ix_approval_inbox", columns.tenant_id, columns.state, columns.approval_id)
    Index("ix_approval_run", columns.tenant_id, columns.run_id)
