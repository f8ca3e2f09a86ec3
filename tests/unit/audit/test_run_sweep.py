"""What a sweep tells of a page at one look is what it tells of each record alone.

Threat: Ledger tampering
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Never
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.run_sweep import NOBODY, RunSweep
from app.audit.sweep_report import LogReport
from app.domain.run import Usage
from app.domain.verdict import Scrubbed
from app.ledger.chain_walk import Columns
from app.ledger.hashing import chain_hash, genesis, record_hash
from app.ledger.header import FIELD_NUMBERS, decode_header
from app.ledger.writing import ChainHead, Draft, RunWriter, WriterKey
from app.storage.sweep_store import SweptPage, SweptRecord
from tests.unit.ledger.test_canonical_header import BOUNDED
from tests.unit.ledger.test_verify_run import BLOCK, LOG

AT = datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC)
WRITERS = (WriterKey(b"k" * 32, b"w" * 16), WriterKey(b"l" * 32, b"v" * 16))
Row = SweptRecord
Rows = tuple[Row, ...]


def entropy(seed: str) -> Callable[[int], bytes]:
    """A stream that gives the same bytes each time."""
    counter = iter(range(1 << 30))
    return lambda length: hashlib.shake_128(f"{seed} {next(counter)}".encode()).digest(length)


def words(text: str) -> Scrubbed:
    return Scrubbed(value=text.encode(), block=BLOCK)


def drafts(turns: int) -> Iterator[Draft]:
    yield Draft(kind="run.submitted", actor="system", fields={"task": words('"do"')})
    for turn in range(turns):
        at = 1 + 4 * turn
        usage = Usage(input_tokens=90 + turn, output_tokens=turn, cost_micros=7 * turn)
        yield Draft(kind="llm.requested", actor="system", fields={"request": words("1" * turn)})
        yield Draft(
            kind="llm.responded",
            actor="model",
            intent=at,
            model="m:1",
            usage=usage,
            fields={"reply": words('"so"')},
        )
        yield Draft(kind="tool.called", actor="model", tool="t", fields={"call": words("{}")})
        yield Draft(
            kind="tool.finished",
            actor="tool",
            intent=at + 2,
            tool="t",
            outcome="ok",
            fields={"result": words('"' + "x" * 3 * turn + '"'), "note": words("1")},
        )
    yield Draft(
        kind="run.finished", actor="system", fields={"output": words('"done"'), "note": words("{}")}
    )


def run_of(number: int, turns: int, first_index: int, *, ended: bool = True) -> Rows:
    """A run of a few turns; from the middle on another process goes on with it."""
    run = hashlib.sha256(b"run %d" % number).digest()[:16]
    made, all_drafts = [], list(drafts(turns))
    if not ended:
        all_drafts.pop()
    half = len(all_drafts) // 2
    head = ChainHead.empty(LOG, run)
    for epoch, (writer, part) in enumerate(
        zip(WRITERS, (all_drafts[:half], all_drafts[half:]), strict=True), 1
    ):
        maker = RunWriter(
            log=LOG, run=run, run_key=bytes(32), writer=writer, entropy=entropy(f"{number} {epoch}")
        )
        if part:
            at = AT + timedelta(seconds=number, microseconds=epoch)
            sealed = maker.seal(head, part, epoch=epoch, at=at)
            made += [(writer, record) for record in sealed.records]
            head = sealed.head
    return tuple(
        SweptRecord(
            run=run,
            seq=r.seq,
            epoch=r.epoch,
            kind=r.kind,
            at=r.at,
            header=r.header,
            rc=r.rc,
            chain=r.chain,
            writer=writer.writer_id,
            index=first_index + 3 * r.seq,
            length=len(made) if ended else None,
            has_row=True,
            fields=committed(r.header),
        )
        for writer, r in made
    )


def committed(header: bytes) -> frozenset[int]:
    commits = decode_header(header)["commit"]
    assert isinstance(commits, dict)
    return frozenset(FIELD_NUMBERS[name] for name in commits)


def unplaced(rows: Rows, start: int) -> Rows:
    return rows[:start] + tuple(replace(row, index=None) for row in rows[start:])


WHOLE: Rows = (
    *run_of(1, 3, 0),
    *run_of(2, 30, 1000),
    *run_of(3, 0, 2),
    *unplaced(run_of(4, 2, 3000, ended=False), 4),
    *unplaced(run_of(5, 2, 0), 0),
    *run_of(6, 6, 5000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnlyAtOnce(SweptPage):
    """A page whose records must not be asked for one by one."""

    def rows(self) -> Never:
        raise AssertionError("looked at one by one")


def page_of(rows: Rows, kind: type[SweptPage] = SweptPage) -> SweptPage:
    return kind(
        records=Columns(
            runs=[UUID(bytes=row.run) for row in rows],
            seqs=[row.seq for row in rows],
            epochs=[row.epoch for row in rows],
            kinds=[row.kind for row in rows],
            times=[row.at for row in rows],
            headers=[row.header for row in rows],
            rcs=[row.rc for row in rows],
            chains=[row.chain for row in rows],
            writers=[None if row.writer is None else UUID(bytes=row.writer) for row in rows],
        ),
        indexes=[row.index for row in rows],
        lengths=[row.length for row in rows],
        have_rows=[row.has_row for row in rows],
        fields=[sorted(row.fields) for row in rows],
    )


def at_once(
    rows: Rows,
    size: int = 10_000,
    kind: type[SweptPage] = SweptPage,
    *,
    erased: bool = False,
    retired: Mapping[bytes, int] = NOBODY,
) -> LogReport:
    report = LogReport(log=LOG, tenant="acme")
    sweep = RunSweep(LOG, report, may_be_erased=erased, retired=retired)
    for start in range(0, len(rows), size):
        sweep.add(page_of(rows[start : start + size], kind))
    sweep.end()
    return report


def one_by_one(
    rows: Rows, *, erased: bool = False, retired: Mapping[bytes, int] = NOBODY
) -> LogReport:
    report = LogReport(log=LOG, tenant="acme")
    sweep = RunSweep(LOG, report, may_be_erased=erased, retired=retired)
    for row in rows:
        sweep.look(row)
    sweep.end()
    return report


def sealed(rows: Rows) -> Rows:
    """The same with hashes that fit what is there now: only the rules are left to tell."""
    made: list[Row] = []
    for row in rows:
        is_next = made and made[-1].run == row.run
        previous = made[-1].chain if is_next else genesis(LOG, row.run)
        rc = row.rc if row.header is None else record_hash(row.header)
        seq = max(row.seq, 0)
        made.append(replace(row, rc=rc, chain=chain_hash(previous, seq, rc)))
    return tuple(made)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 64, 10_000])
def test_what_writers_made_holds_at_one_look(size: int) -> None:
    report = at_once(WHOLE, size, _OnlyAtOnce)
    assert report == one_by_one(WHOLE)
    assert (report.runs, report.records, report.broken) == (6, len(WHOLE), 0)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_a_retired_writer_signed_from_its_index_on_is_told_at_any_size(size: int) -> None:
    run = run_of(1, 3, 0)
    theirs = [row for row in run if row.writer == WRITERS[1].writer_id]
    indexes = [row.index for row in theirs if row.index is not None]
    assert len(indexes) == len(theirs) > 1
    for retired_at, told in ((indexes[1], len(theirs) - 1), (indexes[-1] + 1, 0)):
        retired = {WRITERS[1].writer_id: retired_at}
        report = at_once(run, size, retired=retired)
        assert report == one_by_one(run, retired=retired)
        assert [f.reason for f in report.findings] == [
            "the writer of this record had been retired"
        ] * told
    # A record that is not in the log yet stands behind all that are.
    assert at_once(unplaced(run, len(run) - 1), size, retired=retired).broken == 1


def test_long_runs_hold_at_one_look() -> None:
    assert at_once(run_of(9, 400, 0), 512, _OnlyAtOnce).broken == 0


def put(number: int, /, **changes: object) -> Rows:
    changed = replace(WHOLE[number], **changes)  # type: ignore[arg-type]  # the test names the fields
    return (*WHOLE[:number], changed, *WHOLE[number + 1 :])


def spelled(at: int, old: bytes, new: bytes, **columns: object) -> Rows:
    """A header with other bytes at the place of the old ones, sealed anew."""
    header = WHOLE[at].header or b""
    assert old in header, header
    return sealed(put(at, header=header.replace(old, new, 1), **columns))


def other(at: int, name: bytes, new: bytes) -> Rows:
    """A header whose member of this name begins with other bytes."""
    header = WHOLE[at].header or b""
    place = header.index(b'"%s":' % name) + len(name) + 4
    changed = header[:place] + new + header[place + len(new) :]
    return sealed(put(at, header=changed))


MIDDLE = 36  # llm.responded of the second run, of a shape that is known by then
HASH = bytes(32)
CHANGES: Sequence[tuple[str, Rows, str]] = [
    ("a record hash", put(MIDDLE, rc=HASH), "record hash"),
    ("a chain hash", put(MIDDLE, chain=HASH), "chain hash"),
    ("a first chain hash", put(0, chain=HASH), "chain hash"),
    ("a header", put(MIDDLE, header=b"{}"), "record hash"),
    ("no header", put(MIDDLE, header=None), "header is gone"),
    ("an epoch", put(MIDDLE, epoch=7), "'epoch' differs"),
    ("no epoch", put(MIDDLE, epoch=None), "'epoch' differs"),
    ("a kind", put(MIDDLE, kind="tool.called"), "'kind' differs"),
    ("no kind", put(MIDDLE, kind=None), "'kind' differs"),
    ("a time", put(MIDDLE, at=AT), "'ts' differs"),
    ("no time", put(MIDDLE, at=None), "'ts' differs"),
    ("a writer", put(MIDDLE, writer=b"z" * 16), "'writer' differs"),
    ("no writer", put(MIDDLE, writer=None), "batch of a record is gone"),
    ("no row", put(14, has_row=False), "row is gone"),
    ("a length", tuple(replace(r, length=5) for r in WHOLE), "was cut"),
    ("an open run", tuple(replace(r, length=None) for r in WHOLE), "do not agree"),
    ("a field too many", put(MIDDLE, fields=frozenset({3, 8})), "never committed"),
    ("a field of no name", put(MIDDLE, fields=frozenset({3, 99})), "never committed"),
    ("a field too few", put(MIDDLE, fields=frozenset()), "payload is gone"),
    ("another field", put(MIDDLE, fields=frozenset({4})), "never committed"),
    ("a place before", put(MIDDLE, index=1), "stands in the log before"),
    ("the same place", put(MIDDLE, index=WHOLE[MIDDLE - 1].index), "stands in the log before"),
    ("a place that is missing", put(MIDDLE, index=None), "the one before it has none"),
    ("a record left out", WHOLE[:MIDDLE] + WHOLE[MIDDLE + 1 :], "is missing before"),
    ("a first record left out", WHOLE[:14] + WHOLE[15:], "is missing before"),
    ("a record twice", WHOLE[: MIDDLE + 1] + WHOLE[MIDDLE:], "is missing before"),
    ("a run begun twice", WHOLE[:1] + WHOLE, "is missing before"),
    ("a run in another", put(MIDDLE, run=WHOLE[0].run), "is missing before"),
    ("an id", other(MIDDLE, b"event_id", b"G"), "malformed"),
    ("an id in capitals", other(MIDDLE, b"nonce", b"A"), "malformed"),
    ("a commitment", other(MIDDLE, b"reply", b"."), "malformed"),
    ("a run", other(MIDDLE, b"run", b"0000"), "'run' differs"),
    ("a log", other(MIDDLE, b"log", b"ffff"), "'log' differs"),
    ("another writer", other(MIDDLE, b"writer", b"0000"), "'writer' differs"),
    ("a date", other(MIDDLE, b"ts", b"2026-11-23"), "'ts' differs"),
    ("no calendar's date", other(MIDDLE, b"ts", b"2026-13-24"), "'ts' differs"),
    ("a week's date", other(MIDDLE, b"ts", b"2026-W48-2"), "malformed"),
    ("a later intent", spelled(MIDDLE, b'"intent":21,', b'"intent":99,'), "malformed"),
    ("an intent", spelled(MIDDLE, b'"intent":21,', b'"intent":22,'), "malformed"),
    ("a version", spelled(MIDDLE, b'"v":1', b'"v":2'), "malformed"),
    ("a usage", spelled(MIDDLE, b'"cost_micros":35', b'"cost_micros":05'), "malformed"),
    ("a seq", spelled(MIDDLE, b'"seq":22', b'"seq":23'), "'seq' differs"),
    ("a kind in the header", spelled(MIDDLE, b'"llm.responded"', b'"llm.requested"'), "'kind'"),
    (
        "an epoch that fell",
        sealed(put(13, epoch=1, header=(WHOLE[13].header or b"").replace(b'h":2', b'h":1'))),
        "the epoch fell",
    ),
]


@pytest.mark.parametrize(("name", "rows", "reason"), CHANGES, ids=[name for name, *_ in CHANGES])
@pytest.mark.parametrize("size", [9, 64, 10_000])
def test_a_change_is_told_as_it_is_told_of_each_record_alone(
    name: str, rows: Rows, reason: str, size: int
) -> None:
    report = at_once(rows, size)
    assert any(reason in found.reason for found in report.findings), (name, report.findings)
    assert report == one_by_one(rows)
    assert at_once(rows, size, erased=True) == one_by_one(rows, erased=True)


ALTERED = st.sampled_from(
    ["seq", "epoch", "kind", "at", "header", "rc", "chain", "writer", "index", "fields", "length"]
)
OTHERS: dict[str, st.SearchStrategy[object]] = {
    "seq": st.integers(0, 300),
    "epoch": st.none() | st.integers(0, 3),
    "kind": st.none() | st.sampled_from(["llm.requested", "run.finished", "x"]),
    "at": st.none() | st.sampled_from([AT, AT + timedelta(microseconds=1)]),
    "header": st.none() | st.sampled_from([row.header for row in WHOLE[:30]]),
    "rc": st.sampled_from([HASH, WHOLE[3].rc]),
    "chain": st.sampled_from([HASH, WHOLE[3].chain]),
    "writer": st.none() | st.sampled_from([writer.writer_id for writer in WRITERS]),
    "index": st.none() | st.integers(0, 6000),
    "fields": st.frozensets(st.sampled_from([1, 2, 3, 5, 8, 99])),
    "length": st.none() | st.integers(0, 40),
}


def corrupted(data: st.DataObject, rows: list[Row]) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    header = rows[at].header
    match data.draw(st.sampled_from(["column", "byte", "number", "drop", "double", "swap"])):
        case "column":
            name = data.draw(ALTERED)
            changes = {name: data.draw(OTHERS[name])}
            rows[at] = replace(rows[at], **changes)  # type: ignore[arg-type]  # the test names the fields
        case "byte" if header is not None:
            place = data.draw(st.integers(0, len(header) - 1))
            byte = data.draw(st.sampled_from(b'019afgAF",:{}- \x00\xff'))
            changed = header[:place] + bytes([byte]) + header[place + 1 :]
            rows[at] = replace(rows[at], header=changed)
        case "number" if header is not None:
            places = [at for at, byte in enumerate(header) if byte in b"0123456789"]
            place = data.draw(st.sampled_from(places))
            digit = data.draw(st.sampled_from(b"0123456789"))
            changed = header[:place] + bytes([digit]) + header[place + 1 :]
            rows[at] = replace(rows[at], header=changed)
        case "drop":
            del rows[at]
        case "double":
            rows.insert(at, rows[at])
        case "swap":
            to = data.draw(st.integers(0, len(rows) - 1))
            rows[at], rows[to] = rows[to], rows[at]
        case _:
            pass


@given(data=st.data(), size=st.integers(1, 220), is_sealed=st.booleans(), erased=st.booleans())
@BOUNDED
def test_no_corruption_is_told_otherwise_than_of_each_record_alone(
    data: st.DataObject, size: int, is_sealed: bool, erased: bool
) -> None:
    rows = list(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        corrupted(data, rows)
    changed = sealed(tuple(rows)) if is_sealed else tuple(rows)
    assert at_once(changed, size, erased=erased) == one_by_one(changed, erased=erased)
