"""Records in the operator log that the database's schema is another one than its records say.

The revision that the database is at commits with its migration, whoever migrates needs no key of
the ledger, and the first leader of the version that this revision is for writes the record: so it
is written for each change that was made durable, once, and for no other.

Source: docs/ledger-format.md section 9 (`schema.change`).

Threat: Ledger tampering
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.administration.admin_log import AdminLog
from app.sequencing.signed_history import SCHEMA_KIND, SignedHistory

_log = logging.getLogger("meshflow.sequencer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a version of this program needs. `revision` asks the database what it is at."""

    product: str
    needed: str
    revision: Callable[[], Awaitable[str | None]]


class SchemaRecord:
    """For one term: nothing of another revision leads in it."""

    def __init__(self, admin_log: AdminLog, history: SignedHistory, schema: Schema) -> None:
        self._admin_log = admin_log
        self._history = history
        self._schema = schema
        self._is_done = False

    async def look(self) -> None:
        """Record a change that has no record; durable then. Only on a history read to its end.

        At a revision that this version does not need it records nothing: one that does will.
        LedgerUnavailableError.
        """
        if self._is_done:
            return
        schema, recorded = self._schema, self._history.schema
        if recorded != schema.needed and await schema.revision() == schema.needed:
            note = {"from": recorded, "to": schema.needed, "product": schema.product}
            await self._admin_log.append(self._history.operator, SCHEMA_KIND, {**note})
            _log.info("the schema went from %s to %s", recorded or "nothing", schema.needed)
        self._is_done = True
