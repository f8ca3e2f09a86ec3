"""Walks records of many runs in order, many at once, without keys or content.

Says that all of them hold, or that it did not see so: then somebody has to look at each. Whatever
is not as it nearly always is belongs to the second.

Source: docs/ledger-format.md sections 5 and 8.

Threat: Ledger tampering
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from app.ledger.hashing import chain_hashes, genesis, u64be
from app.ledger.header_shape import HeaderShapes, Told

_TABLE = 1024
_IN_DIGITS = [b"%d" % seq for seq in range(_TABLE)]
_IN_BYTES = [u64be(seq) for seq in range(_TABLE)]


class Columns(NamedTuple):
    """Records in the order of run and seq, as columns of one length."""

    runs: Sequence[UUID]
    seqs: Sequence[int]
    epochs: Sequence[int | None]
    kinds: Sequence[str | None]
    times: Sequence[datetime | None]
    headers: Sequence[bytes | None]
    rcs: Sequence[bytes]
    chains: Sequence[bytes]
    writers: Sequence[UUID | None]

    def part(self, start: int, end: int) -> "Columns":
        """Some of them."""
        return Columns(
            runs=self.runs[start:end],
            seqs=self.seqs[start:end],
            epochs=self.epochs[start:end],
            kinds=self.kinds[start:end],
            times=self.times[start:end],
            headers=self.headers[start:end],
            rcs=self.rcs[start:end],
            chains=self.chains[start:end],
            writers=self.writers[start:end],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How far a run was walked."""

    run: UUID
    next_seq: int
    epoch: int
    chain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Records of one run that stand together: from which to which, and how far they lead."""

    start: int
    end: int
    reached: Reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """Records that all hold, and which payload fields each of them committed to."""

    stretches: Sequence[Stretch]
    fields: Sequence[Sequence[int]]


@dataclass(slots=True)
class _Place:
    """What the columns say of the place of each record, as headers and hashes spell it."""

    runs: list[bytes] = field(default_factory=list)
    seqs: list[bytes] = field(default_factory=list)
    writers: list[bytes] = field(default_factory=list)
    hashed_seqs: list[bytes] = field(default_factory=list)


class ChainWalk:
    """The walk through one log's records. Remembers shapes of headers and nothing else."""

    def __init__(self, log: bytes) -> None:
        self._log = log
        self._shapes = HeaderShapes(log)

    def over(self, page: Columns, since: Reached | None) -> Walked | None:
        """What a page leads to that begins where `since` is; None unless all of it holds.

        Every header is one, agrees with its columns, and is the next link of its run's chain.
        """
        told, place = Told(), _Place()
        previous = [b"" if since is None else since.chain, *page.chains[:-1]]
        stretches: list[Stretch] = []
        for start, end in _runs_in(page.seqs):
            before = stretches[-1].reached if stretches else since
            run, first = page.runs[start], page.seqs[start]
            if first == 0 and (before is None or before.run != run):
                previous[start], epoch = genesis(self._log, run.bytes), 0
            elif first and before is not None and (run, first) == (before.run, before.next_seq):
                epoch = before.epoch
            else:
                return None
            last = self._stretch(page, start, end, epoch, told, place)
            if last is None:
                return None
            reached = Reached(
                run=run, next_seq=first + end - start, epoch=last, chain=page.chains[end - 1]
            )
            stretches.append(Stretch(start=start, end=end, reached=reached))
        if not _agree(page, told, place):
            return None
        if chain_hashes(previous, place.hashed_seqs, page.rcs) != list(page.chains):
            return None
        return Walked(stretches=stretches, fields=told.fields)

    def _stretch(
        self, page: Columns, start: int, end: int, epoch: int, told: Told, place: _Place
    ) -> int | None:
        """The last epoch of one run's records; None when they are no run's next ones."""
        run, first, count = page.runs[start], page.seqs[start], end - start
        if page.runs[start:end].count(run) != count:
            return None
        if list(page.seqs[start:end]) != list(range(first, first + count)):
            return None
        place.runs += [run.hex.encode()] * count
        place.seqs += _numbered(_IN_DIGITS, first, count)
        place.hashed_seqs += _numbered(_IN_BYTES, first, count)
        for begun, over in _of_one_epoch(page, start, end):
            own, writer = page.epochs[begun], page.writers[begun]
            if own is None or writer is None or own < epoch:
                return None
            epoch = own
            rows = slice(begun, over)
            place.writers += [writer.hex.encode()] * (over - begun)
            if not self._shapes.tell(
                told, epoch, page.headers[rows], page.kinds[rows], page.seqs[rows]
            ):
                return None
        return epoch


def _agree(page: Columns, told: Told, place: _Place) -> bool:
    return (
        told.is_spelled()
        and told.record_hashes == list(page.rcs)
        and told.runs == place.runs
        and told.seqs == place.seqs
        and told.writers == place.writers
        and told.times() == list(page.times)
    )


def _runs_in(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """From where to where one run goes, if each but the first begins in here."""
    starts = [0, *(at for at, seq in enumerate(seqs) if seq == 0 and at)]
    return zip(starts, [*starts[1:], len(seqs)], strict=True)


def _of_one_epoch(page: Columns, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Parts of a run that one writer wrote in one epoch: nearly always all of it."""
    while start < end:
        epoch, writer = page.epochs[start], page.writers[start]
        over = end
        if (
            page.epochs[start:end].count(epoch) != end - start
            or page.writers[start:end].count(writer) != end - start
        ):
            over = start + 1
            while over < end and (page.epochs[over], page.writers[over]) == (epoch, writer):
                over += 1
        yield start, over
        start = over


def _numbered(table: Sequence[bytes], first: int, count: int) -> Sequence[bytes]:
    """The seqs from `first` on as the table spells them."""
    if first + count <= _TABLE:
        return table[first : first + count]
    spelled = u64be if table is _IN_BYTES else b"%d".__mod__
    return [spelled(seq) for seq in range(first, first + count)]
