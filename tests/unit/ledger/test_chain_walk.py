"""The walk without keys finds what the verifier finds in headers, columns and hashes.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from app.domain.errors import ChainBreak
from app.ledger.chain import StoredRecord
from app.ledger.chain_walk import ChainWalk
from tests.unit.ledger.test_verify_run import LOG, RUN, WHOLE


def walked(records: Sequence[StoredRecord], log: bytes = LOG, run: bytes = RUN) -> list[ChainBreak]:
    walk = ChainWalk(log)
    rows = [(run, r.seq, r.epoch, r.kind, r.at, r.header, r.rc, r.chain) for r in records]
    return [found for row in rows if (found := walk.step(row)) is not None]


def test_what_the_writer_made_holds_again_and_again() -> None:
    assert walked(WHOLE.records) == []
    walk = ChainWalk(LOG)
    for _ in range(2):
        for r in WHOLE.records:
            assert walk.step((RUN, r.seq, r.epoch, r.kind, r.at, r.header, r.rc, r.chain)) is None
        assert walk.step((b"\xff" * 16, 1, 1, "", None, b"", b"", b"")) is not None


@pytest.mark.parametrize(
    ("at", "changes", "reason"),
    [
        (2, {"seq": 7}, "a record is missing or out of order"),
        (1, {"epoch": 1}, "a column differs from the header"),
        (1, {"kind": "llm.other"}, "a column differs from the header"),
        (1, {"at": None}, "the header is gone without a recorded erasure"),
        (1, {"header": None}, "the header is gone without a recorded erasure"),
        (1, {"header": b"{}"}, "the header is malformed"),
        (1, {"rc": bytes(32)}, "the record hash does not match the header"),
        (1, {"chain": bytes(32)}, "the chain hash does not match"),
    ],
)
def test_a_change_is_named_where_it_is(at: int, changes: dict[str, object], reason: str) -> None:
    records = list(WHOLE.records)
    records[at] = replace(records[at], **changes)  # type: ignore[arg-type]  # the test names the fields
    found = walked(records)
    assert found[0].reason.startswith(reason)
    assert found[0].seq == at


def test_a_time_moved_by_a_microsecond_is_found() -> None:
    records = list(WHOLE.records)
    assert records[3].at is not None
    records[3] = replace(records[3], at=records[3].at + timedelta(microseconds=1))
    assert [found.seq for found in walked(records)] == [3]


def test_another_log_or_run_is_another_chain() -> None:
    assert walked(WHOLE.records, log=bytes(16))[0].seq == 0
    assert walked(WHOLE.records, run=bytes(16))[0].seq == 0


def test_a_fallen_epoch_is_found() -> None:
    walk = ChainWalk(LOG)
    rows = [(RUN, r.seq, r.epoch, r.kind, r.at, r.header, r.rc, r.chain) for r in WHOLE.records]
    assert [row[2] for row in rows][:2] == [1, 2]
    assert walk.step(rows[1]) is not None  # the first is missing
    walk = ChainWalk(LOG)
    assert all(walk.step(row) is None for row in rows)
