"""A gap is lawful where a statement names it with the stored hashes, and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from app.domain.erasure import ErasureAction
from app.domain.errors import ChainBreak
from app.ledger.chain import StoredRun, VerifiedChain, verify_run
from app.ledger.erasure_statement import (
    NOTHING,
    Erased,
    ErasedItem,
    ErasureStatement,
    erased_of,
)
from app.ledger.header import FIELD_NUMBERS
from tests.unit.ledger.test_verify_run import ENROLMENT, KEY, LOG, RUN, WHOLE

OUTPUT = {3: ("output",)}
ALL = {0: ("task",), 1: ("request",), 2: ("reply",), 3: ("output",)}


def _statement(
    taken: Mapping[int, tuple[str, ...]], action: ErasureAction, **wrong: bytes
) -> ErasureStatement:
    """About every record as it is stored, except that record 2 has what is `wrong`."""
    items = [
        ErasedItem(seq=r.seq, rc=r.rc, chain=r.chain, fields=taken.get(r.seq, ()))
        for r in WHOLE.records
    ]
    items[2] = replace(items[2], **wrong)  # type: ignore[arg-type]  # the test names the fields
    return ErasureStatement(
        action=action,
        log=LOG,
        run=RUN,
        at=datetime(2026, 11, 25, tzinfo=UTC),
        actor="system",
        legal_basis="gdpr.art17",
        request_ref=bytes(32),
        items=tuple(items),
        checkpoint=None,
    )


def _erased(
    taken: Mapping[int, tuple[str, ...]] = OUTPUT,
    action: ErasureAction = ErasureAction.ANONYMIZE_RUN,
    **wrong: bytes,
) -> Erased:
    return erased_of([_statement(taken, action, **wrong)], log=LOG, run=RUN)


def _without(*names: str) -> StoredRun:
    numbers = {FIELD_NUMBERS[name] for name in names}
    return replace(WHOLE, fields=[item for item in WHOLE.fields if item.field not in numbers])


def _deleted(**left: object) -> StoredRun:
    """All records emptied; record 1 keeps what is `left`."""
    empty = {"header": None, "kind": None, "at": None, "epoch": None}
    records = [replace(r, **empty) for r in WHOLE.records]  # type: ignore[arg-type]  # as above
    records[1] = replace(records[1], **left)  # type: ignore[arg-type]  # as above
    return replace(WHOLE, fields=[], records=records)


DELETED = _erased(ALL, ErasureAction.DELETE_RUN)


def test_a_field_that_a_statement_names_may_be_gone() -> None:
    chain = verify_run(_without("output"), KEY, {ENROLMENT.public_key}, None, _erased())
    assert isinstance(chain, VerifiedChain)
    assert [record.erased for record in chain.records] == [set(), set(), set(), {"output"}]
    assert (chain.is_erased, chain.deleted) == (True, 0)
    assert "output" not in chain.records[3].fields


def test_of_a_deleted_run_the_hashes_go_on() -> None:
    whole = verify_run(WHOLE, KEY, {ENROLMENT.public_key})
    chain = verify_run(_deleted(), None, {ENROLMENT.public_key}, None, DELETED)
    assert isinstance(whole, VerifiedChain)
    assert isinstance(chain, VerifiedChain)
    assert (chain.records, chain.deleted, chain.is_erased) == ((), 4, True)
    assert chain.head.chain == whole.head.chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something that is not as the statement says, and the break that names it."""

    stored: StoredRun
    erased: Erased = field(default_factory=_erased)
    key: bytes | None = KEY
    seq: int
    reason: str


CASES = {
    "a field without a statement": Case(
        stored=_without("output"), erased=NOTHING, seq=3, reason="gone without a recorded erasure"
    ),
    "another field than the statement names": Case(
        stored=_without("output", "reply"), seq=2, reason="gone without a recorded erasure"
    ),
    "a field that came back": Case(stored=WHOLE, seq=3, reason="still there although"),
    "a statement about other hashes": Case(
        stored=_without("output"), erased=_erased(rc=b"x" * 32), seq=2, reason="another record"
    ),
    "a statement about another chain": Case(
        stored=_without("output"), erased=_erased(chain=b"x" * 32), seq=2, reason="another record"
    ),
    "a field that never was": Case(
        stored=_without("output"),
        erased=_erased({**OUTPUT, 1: ("reply",)}),
        seq=1,
        reason="never was",
    ),
    "a header without a statement": Case(
        stored=_deleted(), erased=NOTHING, seq=0, reason="gone without a recorded erasure"
    ),
    "a header that only fields were taken from": Case(
        stored=_deleted(), erased=_erased(ALL), seq=0, reason="gone without a recorded erasure"
    ),
    "a header that came back": Case(
        stored=WHOLE, erased=DELETED, key=None, seq=0, reason="still there although"
    ),
    "a deleted record that says its kind": Case(
        stored=_deleted(kind="llm.requested"),
        erased=DELETED,
        key=None,
        seq=1,
        reason="still says what it was",
    ),
    "a deleted record with another hash": Case(
        stored=_deleted(rc=b"x" * 32), erased=DELETED, key=None, seq=1, reason="another record"
    ),
    "a payload of a deleted record": Case(
        stored=replace(_deleted(), fields=WHOLE.fields[:1]),
        erased=DELETED,
        key=None,
        seq=0,
        reason="belongs to no record",
    ),
    "a deleted run that was cut": Case(
        stored=replace(_deleted(), records=_deleted().records[:3], entries=3),
        erased=DELETED,
        key=None,
        seq=3,
        reason="was cut",
    ),
    "a record after the erasure": Case(
        stored=_without("output"),
        erased=Erased(records={seq: _erased().records[seq] for seq in range(3)}, is_deleted=False),
        seq=3,
        reason="came after the run was erased",
    ),
    "fields whose key is gone": Case(
        stored=WHOLE, erased=NOTHING, key=None, seq=0, reason="the key of the run is gone"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_as_a_statement_says_is_a_break(name: str) -> None:
    case = CASES[name]
    found = verify_run(case.stored, case.key, {ENROLMENT.public_key}, None, case.erased)
    assert isinstance(found, ChainBreak), "not noticed"
    assert (found.seq, case.reason in found.reason) == (case.seq, True), found
