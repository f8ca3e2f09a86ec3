"""Knows which names recoveries gave to logs, so that nobody hides what was signed by a new name.

A log that a recovery has just renamed has no checkpoint yet, and all of it is pending. Whoever owns
the database could write such a name; only a record of the operator log makes it one.

Source: docs/ledger-format.md sections 9 and 10.

Threat: Ledger tampering
"""

from collections.abc import Awaitable, Callable

from app.audit.inclusion import InclusionError
from app.audit.log_entries import EntryError, open_entry
from app.domain.run import TenantId
from app.keys.key_store import KeyStore
from app.storage.database import Database
from app.storage.entry_store import find_entries, read_entries
from app.storage.place_store import LogState

RECOVERED = "log.recovery"
_PAGE = 256


class RecoveredNames:
    """The names of one deployment. Remembers those it has read: a record of one does not go."""

    def __init__(
        self,
        *,
        database: Database,
        keys: KeyStore,
        operator: Callable[[], Awaitable[TenantId]],
    ) -> None:
        self._database = database
        self._keys = keys
        self._operator = operator
        self._known: set[str] = set()

    async def require(self, state: LogState | None, seq: int) -> None:
        """InclusionError for a log under a recovery's name that no recovery gave and nobody signed.

        A name under which the log key has signed needs no other proof.
        """
        if state is None or not state.recovery or state.checkpoint is not None:
            return
        if state.origin not in self._known:
            await self._read()
        if state.origin not in self._known:
            raise InclusionError(seq, "the head of the log has a name that no recovery gave it")

    async def _read(self) -> None:
        operator = await self._operator()
        async with self._database.snapshot(operator) as raw:
            places = await find_entries(raw, operator, [RECOVERED])
            for at in range(0, len(places), _PAGE):
                page = places[at : at + _PAGE]
                for run_id in dict.fromkeys(run for run, _ in page):
                    seqs = [seq for run, seq in page if run == run_id]
                    for stored in await read_entries(raw, operator, run_id, seqs):
                        try:
                            note = open_entry(operator, stored, self._keys).note
                        except EntryError:
                            continue  # it gives no name
                        self._known.add(str(note.get("origin")))
