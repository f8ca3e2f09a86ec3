"""The key that a leader signs logs with, and the record by which one key gives way to the next.

Whoever makes a new key only puts it beside the old one. The leader, who alone signs, sees it before
it signs next, records how far the old one has signed each log, and signs with the new one from
there on: no checkpoint can fall between the two. A log that a recovery renamed is signed once more
as large as it was; where that is no larger than the old key signed it, the old key signs it.

Source: docs/ledger-format.md section 11.

Threat: Ledger tampering
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

from app.administration.admin_log import AdminLog
from app.domain.run import TenantId
from app.keys.signing_keys import LOG, SigningKey, SigningKeys
from app.ledger.key_statements import ROTATED, KeyChange, counts_at, rotation_note
from app.sequencing.log_names import log_of
from app.storage.keeper_store import signed_sizes
from app.storage.sequencer_store import Leader
from app.transparency.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from app.transparency.note import ED25519, NoteError, verifier_key

_log = logging.getLogger("meshflow.sequencer")


class LogSigner:
    """Signs for one leader. `recorded` are the changes that the operator log holds."""

    def __init__(
        self,
        *,
        signing: SigningKeys,
        admin_log: AdminLog,
        operator: TenantId,
        recorded: Callable[[], Awaitable[Sequence[KeyChange]]],
    ) -> None:
        self._signing = signing
        self._admin_log = admin_log
        self._operator = operator
        self._recorded = recorded
        self._seen: tuple[str, ...] = ()
        self._keys: tuple[SigningKey, ...] = ()
        self._changes: list[KeyChange] = []  # of log keys, between those
        self._every: tuple[SigningKey, ...] = ()

    async def prepare(self, leader: Leader) -> None:
        """Before anything is signed: is there a new key? Its record is durable then."""
        names = self._signing.names(LOG)
        if names == self._seen and names:
            return
        self._signing.current(LOG)
        keys = self._signing.every(LOG)
        changes: list[KeyChange] = []
        if len(keys) > 1:
            changes += [change for change in await self._recorded() if change.role == LOG]
        known = {change.new for change in changes}
        for old, new in pairwise(keys):
            if new.public_key in known:
                continue
            sizes = await signed_sizes(leader)
            change = KeyChange(role=LOG, old=old.public_key, new=new.public_key, sizes=sizes)
            note = rotation_note(change, old.sign, new.sign)
            await self._admin_log.append(self._operator, ROTATED, note)
            changes.append(change)
            _log.warning("the log key gave way to a new one")
        self._keys, self._changes = keys, changes
        self._seen = self._signing.names(LOG)[: len(keys)]

    def sign(self, checkpoint: Checkpoint) -> str:
        """The signed note under the newest key that counts at this size of the log.

        NoteError for an origin that is no key name.
        """
        log, size = log_of(checkpoint.origin) or b"", checkpoint.size
        good = [k for k in self._keys if counts_at(self._changes, k.public_key, size, log)]
        return sign_checkpoint(checkpoint, (good or self._keys)[-1].seed).decode()

    def opened(self, note: str, origin: str) -> Checkpoint:
        """The checkpoint that a key of ours signed, an earlier one perhaps. NoteError."""
        found = self._opened(note, origin, self._every)
        if found is None:  # a key may be there by now that was not when this last looked
            self._every = self._signing.every(LOG)
            found = self._opened(note, origin, self._every)
        if found is None:
            raise NoteError("no key of this deployment signed it")
        return found

    @staticmethod
    def _opened(note: str, origin: str, keys: Sequence[SigningKey]) -> Checkpoint | None:
        for key in reversed(keys):
            try:
                vkey = verifier_key(origin, ED25519, key.public_key)
                return open_checkpoint(note.encode("utf-8", "surrogateescape"), vkey)
            except NoteError:
                continue
        return None
