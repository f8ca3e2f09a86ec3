"""Finds out when a tenant's checkpoint was witnessed: its record, the operator log, the quorum.

A checkpoint is witnessed when the operator log holds it and enough witnesses signed that log.

Source: docs/ledger-format.md section 10.

Threat: Ledger tampering
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from app.audit.inclusion import Inclusion, InclusionCheck, InclusionError
from app.audit.log_entries import EntryError, OpenedEntry, open_entry
from app.domain.run import TenantId
from app.keys.key_store import KeyStore
from app.storage.database import Database
from app.storage.entry_store import StoredEntry, read_cosigned, read_entries, read_lines
from app.storage.log_store import read_tiles
from app.storage.place_store import SignedHead, read_log_state, read_older
from app.transparency.checkpoint import Checkpoint, verify_cosignature
from app.transparency.note import Note, NoteError, VerifierKey, parse_note, parse_signature_line
from app.transparency.proven_tree import ProvenTree, tiles_for_leaves
from app.transparency.tiles import TileError, Tiles
from app.transparency.witness_policy import NO_QUORUM, WitnessPolicy

_CANDIDATES = 4  # operator checkpoints that are looked at for a quorum
_REMEMBERED = 4096
CHECKPOINT_KIND = "checkpoint.tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """A tenant's checkpoint in the operator log, and when a quorum had seen that log."""

    at: datetime | None  # None: the operator log holds it, and no quorum has seen that
    entry: OpenedEntry
    operator: Checkpoint
    note: str  # the operator's checkpoint as signed by the log
    lines: tuple[str, ...]
    tiles: Tiles


class Witnessing:
    """Looks into the operator log. Remembers what was witnessed: that does not change any more."""

    def __init__(
        self,
        *,
        database: Database,
        keys: KeyStore,
        check: InclusionCheck,
        policy: WitnessPolicy | None,
        operator: Callable[[], Awaitable[TenantId]],
    ) -> None:
        self._database = database
        self._keys = keys
        self._check = check
        self.policy = policy
        self._operator = operator
        self._known: dict[str, datetime] = {}

    async def operator(self) -> TenantId:
        """The operator log's id."""
        return await self._operator()

    @property
    def is_asked_for(self) -> bool:
        """Whether this deployment has witnesses."""
        return self.policy is not None and self.policy.quorum != NO_QUORUM

    async def seen_at(self, head: SignedHead, *, anew: bool) -> datetime | None:
        """When this checkpoint was witnessed; None while it is not. InclusionError.

        The caller has checked its signature. `anew`: all of it is looked at again.
        """
        if not self.is_asked_for:
            return None
        known = None if anew else self._known.get(head.note)
        if known is not None:
            return known
        found = await self.find(head, newest=False)
        if found is None or found.at is None:
            return None
        if len(self._known) >= _REMEMBERED:
            self._known.pop(next(iter(self._known)))
        self._known[head.note] = found.at
        return found.at

    async def seen_without(self, tenant_id: TenantId, inclusion: Inclusion) -> datetime | None:
        """When witnesses saw the log as it was before a run's first record. InclusionError."""
        covering = inclusion.covering
        if covering is None or not self.is_asked_for:
            return None
        below = min(inclusion.places.values()) + 1
        async with self._database.snapshot(tenant_id) as raw:
            older = await read_older(raw, tenant_id, covering.origin, below, 1)
        for head in older:
            self._check.opened(head, covering.origin, tenant_id.bytes, 0)
            return await self.seen_at(head, anew=False)
        return None

    async def find(self, head: SignedHead, *, newest: bool) -> Witnessed | None:
        """The first, or the newest, proof that this checkpoint was witnessed. InclusionError."""
        return await self._find(head, newest=newest, must_be_seen=True)

    async def anchored(self, head: SignedHead) -> Witnessed | None:
        """The proof that the operator log holds it, whoever has seen that log. InclusionError."""
        return await self._find(head, newest=True, must_be_seen=False)

    async def _find(
        self, head: SignedHead, *, newest: bool, must_be_seen: bool
    ) -> Witnessed | None:
        if head.anchor_run is None or head.anchor_seq is None:
            raise InclusionError(0, "a checkpoint is in no record of the operator log")
        operator = await self._operator()
        async with self._database.snapshot(operator) as raw:
            entries = await read_entries(raw, operator, head.anchor_run, [head.anchor_seq])
            entry = self._opened(operator, entries[0] if entries else None, head)
            index = entry.stored.index
            state = await read_log_state(raw, operator)
            if index is None or state is None:
                return None
            self._check.signed(state, operator.bytes, 0)
            candidates = await read_cosigned(
                raw, operator, state.origin, index, _CANDIDATES, newest=newest
            )
            if not must_be_seen and state.checkpoint is not None and state.checkpoint.size > index:
                candidates = [state.checkpoint]
            for candidate in candidates:
                lines = await read_lines(raw, operator, state.origin, candidate.size)
                opened = self._check.opened(candidate, state.origin, operator.bytes, 0)
                at, counted = self._quorum(candidate.note, lines, newest=newest)
                if at is None and must_be_seen:
                    continue
                tiles = await read_tiles(raw, operator, tiles_for_leaves([index], opened.size))
                _check_place(opened, tiles, entry, index)
                return Witnessed(
                    at=None if at is None else datetime.fromtimestamp(at, UTC),
                    entry=entry,
                    operator=opened,
                    note=candidate.note,
                    lines=counted,
                    tiles=tiles,
                )
        return None

    def _opened(
        self, operator: TenantId, stored: StoredEntry | None, head: SignedHead
    ) -> OpenedEntry:
        if stored is None:
            raise InclusionError(0, "the operator log's record of a checkpoint is gone")
        try:
            entry = open_entry(operator, stored, self._keys)
            is_it = entry.kind == CHECKPOINT_KIND and entry.note == {"checkpoint": head.note}
        except EntryError as error:
            reason = f"the operator log's record of a checkpoint does not hold: {error}"
            raise InclusionError(0, reason) from error
        if not is_it:
            raise InclusionError(0, "the operator log's record of a checkpoint is of another one")
        return entry

    def _quorum(
        self, note: str, lines: Iterable[str], *, newest: bool
    ) -> tuple[int | None, tuple[str, ...]]:
        """When the quorum was made up, and the lines that count. InclusionError for a bad line."""
        policy = self.policy
        if policy is None or policy.quorum == NO_QUORUM:
            return None, ()
        by_key = {(w.key.name, w.key.key_id): w for w in policy.witnesses}
        stamps: dict[str, int] = {}
        counted: dict[str, str] = {}
        for line in lines:
            try:
                signature = parse_signature_line(line)
                witness = by_key.get((signature.name, signature.key_id))
                if witness is None:
                    continue
                at = _cosigned_at(note, line, witness.key)
            except NoteError as error:
                raise InclusionError(0, "a cosignature of a witness does not hold") from error
            before = stamps.get(witness.name)
            if before is None or (at > before) == newest:
                stamps[witness.name], counted[witness.name] = at, line
        return quorum_time(policy, stamps), tuple(counted.values())


def quorum_time(policy: WitnessPolicy, stamps: Mapping[str, int]) -> int | None:
    """The earliest time by which enough witnesses had signed, by their names in the policy."""
    for at in sorted(set(stamps.values())):
        if policy.satisfied([name for name, stamp in stamps.items() if stamp <= at]):
            return at
    return None


def _check_place(operator: Checkpoint, tiles: Tiles, entry: OpenedEntry, index: int) -> None:
    try:
        tree = ProvenTree(operator.size, operator.root, tiles)
        if tree.leaf_hash(index) != entry.leaf_hash:
            raise InclusionError(0, "the operator log holds another record in a checkpoint's place")
    except TileError as error:
        raise InclusionError(0, f"the tree of the operator log does not hold: {error}") from error


@lru_cache(maxsize=4096)
def _cosigned_at(note: str, line: str, key: VerifierKey) -> int:
    text = parse_note(note.encode()).text
    return verify_cosignature(Note(text=text, signatures=(parse_signature_line(line),)), key)
