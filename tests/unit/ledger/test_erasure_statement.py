"""A statement has one spelling and one signature; everything near it is refused."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from app.domain.erasure import ErasureAction
from app.domain.run import Json, JsonObject
from app.ledger.erasure_statement import (
    ErasedItem,
    ErasureStatement,
    StatementError,
    checked_statement,
    erased_of,
    parse_statement,
    signed_note,
)
from app.ledger.hashing import tag

LOG, RUN = bytes(range(16)), bytes(range(16, 32))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
STATEMENT = ErasureStatement(
    action=ErasureAction.ANONYMIZE_RUN,
    log=LOG,
    run=RUN,
    at=datetime(2026, 11, 25, 1, 2, 3, 4, tzinfo=UTC),
    actor="key:0123456789abcdef",
    legal_basis="gdpr.art17",
    request_ref=b"r" * 32,
    items=(
        ErasedItem(seq=0, rc=b"a" * 32, chain=b"b" * 32, fields=("task",)),
        ErasedItem(seq=1, rc=b"c" * 32, chain=b"d" * 32, fields=()),
    ),
    checkpoint="origin\n2\nroot\n",
)


def _note(statement: bytes) -> bytes:
    return json.dumps(signed_note(statement, public_key=PUBLIC, sign=KEY.sign)).encode()


def test_what_was_signed_is_read_back() -> None:
    assert checked_statement(_note(STATEMENT.encode()), keys={PUBLIC}) == STATEMENT
    tenant = replace(STATEMENT, action=ErasureAction.DELETE_TENANT, run=None, items=None)
    assert checked_statement(_note(tenant.encode()), keys={PUBLIC}) == tenant


def test_the_signature_is_over_the_tag_and_the_bytes() -> None:
    note = json.loads(_note(STATEMENT.encode()))
    signature = bytes.fromhex(note["signature"])
    KEY.public_key().verify(signature, tag("erasure") + STATEMENT.encode())


@given(st.integers(min_value=0), st.integers(0, 7))
def test_no_bit_of_a_note_can_be_another(place: int, bit: int) -> None:
    note = bytearray(_note(STATEMENT.encode()))
    note[place % len(note)] ^= 1 << bit
    with pytest.raises(StatementError):
        checked_statement(bytes(note), keys={PUBLIC})


def test_a_key_that_is_not_the_deployments_says_nothing() -> None:
    with pytest.raises(StatementError, match="not an erasure key"):
        checked_statement(_note(STATEMENT.encode()), keys={b"x" * 32})
    with pytest.raises(StatementError, match="not an erasure key"):
        checked_statement(_note(STATEMENT.encode()), keys=())


CHANGES: dict[str, Json] = {
    "v": 2,
    "action": "forget",
    "log": "00",
    "run": None,
    "at": "2026-11-25T01:02:03Z",
    "actor": "somebody",
    "legal_basis": "Because!",
    "request_ref": "ticket 4711",
    "items": None,
    "checkpoint": 7,
}
ITEMS: tuple[Json, ...] = (
    [],
    [{"seq": 1, "rc": "aa" * 32, "chain": "bb" * 32, "fields": []}],
    [{"seq": 0, "rc": "aa", "chain": "bb" * 32, "fields": []}],
    [{"seq": 0, "rc": "aa" * 32, "chain": "bb" * 32, "fields": ["task", "task"]}],
    [{"seq": 0, "rc": "aa" * 32, "chain": "bb" * 32, "fields": ["task", "output"]}],
    [{"seq": 0, "rc": "aa" * 32, "chain": "bb" * 32, "fields": ["password"]}],
    [{"seq": 0, "rc": "aa" * 32, "chain": "bb" * 32, "fields": [], "more": 1}],
    [{"seq": False, "rc": "aa" * 32, "chain": "bb" * 32, "fields": []}],
    ["record 0"],
)


def _changed(**members: Json) -> bytes:
    told: JsonObject = {**json.loads(STATEMENT.encode()), **members}
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("member", CHANGES)
def test_a_member_that_breaks_its_rule_is_refused(member: str) -> None:
    with pytest.raises(StatementError):
        parse_statement(_changed(**{member: CHANGES[member]}))


@pytest.mark.parametrize("items", ITEMS, ids=range(len(ITEMS)))
def test_items_name_every_record_once_and_known_fields_only(items: Json) -> None:
    with pytest.raises(StatementError):
        parse_statement(_changed(items=items))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        STATEMENT.encode() + b" ",
        STATEMENT.encode().replace(b'"v":1', b'"v":1.0'),
        STATEMENT.encode().replace(b'"v":1', b'"v":true'),
        STATEMENT.encode().replace(b'{"action"', b'{"action":"delete_run","action"'),
        _changed(more=1),
    ],
)
def test_another_spelling_is_another_statement(raw: bytes) -> None:
    with pytest.raises(StatementError):
        parse_statement(raw)


def test_statements_of_one_run_add_up_and_of_another_are_refused() -> None:
    more = replace(
        STATEMENT,
        items=(
            ErasedItem(seq=0, rc=b"a" * 32, chain=b"b" * 32, fields=("reply",)),
            ErasedItem(seq=1, rc=b"x" * 32, chain=b"d" * 32, fields=("output",)),
        ),
    )
    erased = erased_of([STATEMENT, more], log=LOG, run=RUN)
    assert erased.records[0].fields == {"task", "reply"}
    assert len(erased.records[1].hashes) == 2  # they contradict each other: a break to the reader
    assert not erased.is_deleted
    with pytest.raises(StatementError):
        erased_of([STATEMENT], log=RUN, run=RUN)
