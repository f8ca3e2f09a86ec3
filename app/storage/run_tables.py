"""Tables of what goes with a run and is no record; tables.py puts them beside its own."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Uuid,
)


def add_run_tables(metadata: MetaData) -> None:
    """Declare them, as the migrations leave them."""
    Table(
        "run_file",
        metadata,
        Column("tenant_id", Uuid, nullable=False),
        Column("run_id", Uuid, nullable=False),
        Column("name", LargeBinary, nullable=False),
        Column("blob", LargeBinary, nullable=False),
        PrimaryKeyConstraint("tenant_id", "run_id", "name", name="pk_run_file"),
        _of_its_run("run_file"),
        CheckConstraint("octet_length(name) = 32", name="ck_run_file_name"),
    )
    label = Table(
        "run_label",
        metadata,
        Column("tenant_id", Uuid, nullable=False),
        Column("digest", LargeBinary, nullable=False),
        Column("run_id", Uuid, nullable=False),
        PrimaryKeyConstraint("tenant_id", "digest", "run_id", name="pk_run_label"),
        _of_its_run("run_label"),
        CheckConstraint("octet_length(digest) = 32", name="ck_run_label_digest"),
    )
    Index("ix_run_label_run", label.c.tenant_id, label.c.run_id)


def _of_its_run(table: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["tenant_id", "run_id"],
        ["runs.tenant_id", "runs.run_id"],
        name=f"fk_{table}_run",
        ondelete="CASCADE",
    )
