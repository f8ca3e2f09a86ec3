"""The walk says where records lead that all hold, and nothing of any others.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from app.ledger.chain import StoredRecord
from app.ledger.chain_walk import ChainWalk, Columns, Reached, Walked
from tests.unit.ledger.test_verify_run import LOG, RUN, WHOLE

WRITER = b"w" * 16


def columns(records: Sequence[StoredRecord], run: bytes = RUN, writer: bytes = WRITER) -> Columns:
    return Columns(
        runs=[UUID(bytes=run)] * len(records),
        seqs=[record.seq for record in records],
        epochs=[record.epoch for record in records],
        kinds=[record.kind for record in records],
        times=[record.at for record in records],
        headers=[record.header for record in records],
        rcs=[record.rc for record in records],
        chains=[record.chain for record in records],
        writers=[UUID(bytes=writer)] * len(records),
    )


def walked(
    records: Sequence[StoredRecord], since: Reached | None = None, log: bytes = LOG
) -> Walked | None:
    return ChainWalk(log).over(columns(records), since)


def test_what_the_writer_made_holds_and_leads_to_its_head() -> None:
    walk = ChainWalk(LOG)
    for _ in range(2):
        found = walk.over(columns(WHOLE.records), None)
        assert found is not None
        (stretch,) = found.stretches
        assert (stretch.start, stretch.end) == (0, 4)
        head = Reached(run=UUID(bytes=RUN), next_seq=4, epoch=2, chain=WHOLE.records[-1].chain)
        assert stretch.reached == head
        assert [list(fields) for fields in found.fields] == [[1], [2], [3], [6]]


@pytest.mark.parametrize("split", [1, 2, 3])
def test_a_page_goes_on_from_the_one_before(split: int) -> None:
    first = walked(WHOLE.records[:split])
    assert first is not None
    since = first.stretches[-1].reached
    rest = WHOLE.records[split:]
    assert walked(rest, since) is not None
    assert walked(rest) is None
    assert walked(rest, replace(since, chain=bytes(32))) is None
    assert walked(rest, replace(since, epoch=3)) is None
    assert walked(rest, replace(since, next_seq=split + 1)) is None
    assert walked(rest, replace(since, run=UUID(bytes=bytes(16)))) is None
    assert walked(WHOLE.records, since) is None  # a run does not begin twice


@pytest.mark.parametrize(
    ("at", "changes"),
    [
        (2, {"seq": 7}),
        (1, {"epoch": 1}),
        (1, {"epoch": None}),
        (1, {"kind": "llm.other"}),
        (1, {"at": None}),
        (1, {"header": None}),
        (1, {"header": b"{}"}),
        (1, {"rc": bytes(32)}),
        (1, {"chain": bytes(32)}),
        (3, {"chain": bytes(32)}),
    ],
)
def test_nothing_is_said_of_a_change(at: int, changes: dict[str, object]) -> None:
    records = list(WHOLE.records)
    records[at] = replace(records[at], **changes)  # type: ignore[arg-type]  # the test names the fields
    assert walked(records) is None


def test_nothing_is_said_of_a_time_moved_by_a_microsecond() -> None:
    records = list(WHOLE.records)
    assert records[3].at is not None
    records[3] = replace(records[3], at=records[3].at + timedelta(microseconds=1))
    assert walked(records) is None


def test_another_log_run_or_writer_is_another_chain() -> None:
    assert walked(WHOLE.records, log=bytes(16)) is None
    walk = ChainWalk(LOG)
    assert walk.over(columns(WHOLE.records, run=bytes(16)), None) is None
    assert walk.over(columns(WHOLE.records, writer=bytes(16)), None) is None
    assert walk.over(columns(WHOLE.records), None) is not None
