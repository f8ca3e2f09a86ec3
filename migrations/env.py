"""Runs migrations on a connection that app/storage/schema.py prepared with lock and timeouts."""

from alembic import context

from app.storage.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
