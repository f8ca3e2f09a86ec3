"""Holds a run's records against the log of its tenant: places, tiles, root, signed checkpoint.

Pure: it is given what was read, and answers how far the run is in the signed tree or the break.

Source: docs/ledger-format.md sections 8 to 10.

Threat: Ledger tampering
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from app.audit.log_keys import LogKeys
from app.domain.errors import ChainBreak
from app.ledger.chain import StoredRun
from app.ledger.hashing import leaf_hash
from app.storage.place_store import LogState, Placement, SignedHead
from app.transparency.checkpoint import Checkpoint
from app.transparency.note import NoteError
from app.transparency.proven_tree import ProvenTree
from app.transparency.tiles import TileError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """How far a run is in its log. `covered`: the first seq that no signed checkpoint covers."""

    places: Mapping[int, int]
    covered: int
    covering: SignedHead | None  # the first checkpoint that has all of those; it was checked


class InclusionError(Exception):
    """What is stored of a log does not hold; names the first break."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(reason)
        self.found = ChainBreak(seq=seq, reason=reason)


class InclusionCheck:
    """Checks runs against logs whose keys are known."""

    def __init__(self, keys: Callable[[], LogKeys]) -> None:
        self._keys = keys

    def covered(self, placement: Placement, first_seq: int, end: int) -> int:
        """The first seq of the run that the log does not claim to have signed. Proves nothing."""
        state = placement.state
        if state is None or state.checkpoint is None:
            return first_seq
        seq = first_seq
        while seq < end:
            index = placement.places.by_seq.get(seq)
            if index is None or index >= state.checkpoint.size:
                break
            seq += 1
        return seq

    def check(self, placement: Placement, stored: StoredRun, first_seq: int) -> Inclusion:
        """The run's inclusion. InclusionError names what does not hold."""
        places, end = placement.places, first_seq + len(stored.records)
        if places.left_out is not None:
            raise InclusionError(
                min(places.left_out, max(end - 1, 0)), "the log leaves this run out from here on"
            )
        gone = [seq for seq in places.by_seq if seq >= end]
        if gone:
            raise InclusionError(min(gone), "a record is gone that the log holds")
        state = placement.state
        if state is None:
            if places.by_seq:
                raise InclusionError(first_seq, "the head of the log is gone")
            self._check_overdue(placement)
            return Inclusion(places={}, covered=first_seq, covering=None)
        checkpoint = self.signed(state, stored.log, first_seq)
        if places.by_seq:
            self._check_places(placement, state, first_seq)
            trees = [(state.size, state.root)]
            if checkpoint is not None:
                trees.append((checkpoint.size, checkpoint.root))
            if placement.covering is not None:
                first = self.opened(placement.covering, state.origin, stored.log, first_seq)
                trees.append((first.size, first.root))
            self._check_leaves(placement, dict.fromkeys(trees), stored)
        self._check_overdue(placement)
        return Inclusion(
            places=places.by_seq,
            covered=self.covered(placement, first_seq, end),
            covering=placement.covering,
        )

    def signed(self, state: LogState, log: bytes, seq: int) -> Checkpoint | None:
        """The log's newest checkpoint, or None when there is none. InclusionError."""
        # A log keeps the name that it began with, whatever the deployment is called by now.
        suffix = f"/r{state.recovery}" if state.recovery else ""
        is_its_name = state.origin.endswith(f"/ledger/{log.hex()}{suffix}")
        if not is_its_name or (state.has_other_names and not state.recovery):
            raise InclusionError(seq, "the head of the log has another name")
        if state.checkpoint is None:
            return None
        checkpoint = self.opened(state.checkpoint, state.origin, log, seq)
        if checkpoint.size > state.size:
            raise InclusionError(seq, "the log ends before its signed checkpoint")
        if checkpoint.size == state.size and checkpoint.root != state.root:
            raise InclusionError(seq, "the root of the log is not the signed one")
        return checkpoint

    def opened(self, head: SignedHead, origin: str, log: bytes, seq: int) -> Checkpoint:
        """The checkpoint of a row that says what its signed note says. InclusionError."""
        try:
            found = self._keys().opened(head.note, origin, log)
        except NoteError as error:
            raise InclusionError(seq, f"a checkpoint of the log does not hold: {error}") from error
        if (found.origin, found.size, found.root) != (head.origin, head.size, head.root):
            raise InclusionError(seq, "a checkpoint of the log is stored as another one")
        return found

    @staticmethod
    def _check_overdue(placement: Placement) -> None:
        if placement.overdue is not None:
            raise InclusionError(placement.overdue, "a record has no place in the log any more")

    @staticmethod
    def _check_places(placement: Placement, state: LogState, first_seq: int) -> None:
        """Gapless from the first seq on, rising, and none beyond the log."""
        before = -1
        places = placement.places.by_seq
        for seq in range(first_seq, first_seq + len(places)):
            index = places.get(seq)
            if index is None:
                raise InclusionError(seq, "a record has no place in the log, but a later one has")
            if index >= state.size or index < 0:
                raise InclusionError(seq, "a record has a place beyond the end of the log")
            if index <= before:
                raise InclusionError(seq, "a record stands in the log before the one before it")
            before = index

    @staticmethod
    def _check_leaves(
        placement: Placement, trees: Collection[tuple[int, bytes]], stored: StoredRun
    ) -> None:
        """Each record that has a place is there, in the log as it is and in each signed tree."""
        places, seq = placement.places.by_seq, min(placement.places.by_seq)
        try:
            proven = [(size, ProvenTree(size, root, placement.tiles)) for size, root in trees]
            for record in stored.records:
                seq = record.seq
                index = places.get(seq)
                if index is None:
                    return
                wanted = leaf_hash(stored.log, stored.run, seq, record.chain)
                if any(index < size and tree.leaf_hash(index) != wanted for size, tree in proven):
                    raise InclusionError(seq, "a record is not the one at its place in the log")
        except TileError as error:
            raise InclusionError(seq, f"the tree of the log does not hold: {error}") from error
