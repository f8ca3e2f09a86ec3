"""Canonical bytes: one spelling for a value, RFC 8785's on the profile, and no byte may change.

Threat: Ledger tampering
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.run import Json, JsonObject, Usage
from app.domain.verdict import Decision, Point, PolicyRef, ScrubBlock, Verdict
from app.ledger.canonical import MAX_INTEGER, CanonicalError, canonical, parse_canonical
from app.ledger.hashing import record_hash
from app.ledger.header import FIELD_NUMBERS, Header, decode_header

# Counts and no clocks: a busy machine makes nothing fail here.
BOUNDED = settings(
    max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
KEYS = st.text("abcxyz0189_.", min_size=1, max_size=12)
INTEGERS = st.integers(-MAX_INTEGER, MAX_INTEGER)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LEAVES = st.none() | st.booleans() | INTEGERS | TEXTS


def nested(depth: int) -> st.SearchStrategy[Json]:
    """Values that nest at most `depth` deep."""
    if depth == 0:
        return LEAVES
    inner = nested(depth - 1)
    return LEAVES | st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)


VALUES = nested(4)


def bytes_of(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def codes(alphabet: str, most: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=1, max_size=most)


COUNTS = st.integers(0, MAX_INTEGER)
NAMES = codes("abz09_.-", 64)
CODES = codes("abz09_.:-", 128)
POLICIES = st.builds(PolicyRef, policy_id=NAMES, version=COUNTS, digest=bytes_of(32).map(bytes.hex))
DECISIONS = st.builds(
    Decision,
    point=st.sampled_from(Point),
    verdict=st.sampled_from(Verdict),
    rules=st.lists(NAMES, max_size=3).map(tuple),
    code=CODES,
    policy=POLICIES,
)
SCRUBS = st.builds(
    ScrubBlock,
    engine=NAMES,
    rules=bytes_of(32).map(lambda digest: f"sha256:{digest.hex()}"),
    policy=NAMES,
    mode=NAMES,
    status=NAMES,
    counts=st.dictionaries(KEYS, COUNTS, max_size=3),
    unscanned=COUNTS,
)
ACTORS = st.sampled_from(["system", "model", "tool", "operator", "key:0123456789abcdef"])


@st.composite
def headers(draw: Callable[[st.SearchStrategy[object]], object]) -> Header:
    """Any header that a writer may write."""
    seq = draw(COUNTS)
    assert isinstance(seq, int)
    names = draw(st.sets(st.sampled_from(sorted(FIELD_NUMBERS))))
    assert isinstance(names, set)
    made = draw(
        st.builds(
            Header,
            log=bytes_of(16),
            run=bytes_of(16),
            seq=st.just(seq),
            epoch=COUNTS,
            kind=codes("abz09_.", 64),
            at=st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis asks for a naive bound
            event_id=bytes_of(16),
            nonce=bytes_of(16),
            actor=ACTORS,
            writer=bytes_of(16),
            intent=st.none() if seq == 0 else st.none() | st.integers(0, seq - 1),
            parent=st.none() | bytes_of(16),
            decision=st.none() | DECISIONS,
            model=st.none() | codes("aZ09_.:-", 128),
            engine=st.none() | codes("aZ09_.:-", 128),
            tool=st.none() | bytes_of(32),
            usage=st.none()
            | st.builds(Usage, input_tokens=COUNTS, output_tokens=COUNTS, cost_micros=COUNTS),
            outcome=st.none() | CODES,
            sandbox=st.none() | CODES,
            approval=st.none() | bytes_of(16),
            scrub=st.none() | SCRUBS,
            size=st.fixed_dictionaries(dict.fromkeys(sorted(names), COUNTS)),
            commit=st.fixed_dictionaries(dict.fromkeys(sorted(names), bytes_of(32))),
        )
    )
    assert isinstance(made, Header)
    return made


@BOUNDED
@given(VALUES)
def test_a_value_comes_back_from_its_canonical_bytes(value: Json) -> None:
    data = canonical(value)
    assert parse_canonical(data) == value
    assert canonical(parse_canonical(data)) == data


@BOUNDED
@given(VALUES)
def test_inside_the_profile_the_bytes_are_those_of_rfc_8785(value: Json) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@BOUNDED
@given(VALUES, st.sampled_from([" ", "\n", "\ufeff", "\t"]), st.integers(0, 1))
def test_another_spelling_of_the_same_value_is_refused(value: Json, space: str, end: int) -> None:
    data = canonical(value)
    other = data + space.encode() if end else space.encode() + data
    with pytest.raises(CanonicalError):
        parse_canonical(other)


@BOUNDED
@given(VALUES)
def test_escaped_and_spaced_json_is_refused_unless_it_is_the_one_spelling(value: Json) -> None:
    for other in (json.dumps(value).encode(), json.dumps(value, separators=(",", ":")).encode()):
        if other != canonical(value):
            with pytest.raises(CanonicalError):
                parse_canonical(other)


@BOUNDED
@given(st.binary(max_size=64))
def test_bytes_from_anywhere_are_canonical_or_refused(data: bytes) -> None:
    try:
        value = parse_canonical(data)
    except CanonicalError:
        return
    assert canonical(value) == data


@BOUNDED
@given(headers())
def test_a_header_comes_back_from_its_bytes_which_are_rfc_8785(header: Header) -> None:
    data = header.encode()
    members = decode_header(data)
    assert rfc8785.dumps(members) == data
    assert canonical(members) == data
    shown: JsonObject = {"seq": header.seq, "log": header.log.hex(), "kind": header.kind}
    assert {name: members[name] for name in shown} == shown
    assert members["commit"] == {name: value.hex() for name, value in header.commit.items()}


@BOUNDED
@given(headers(), st.data())
def test_any_changed_header_byte_is_refused_or_changes_the_hash(
    header: Header, data: st.DataObject
) -> None:
    whole = header.encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    mask = data.draw(st.integers(1, 255))
    changed = whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :]
    assert record_hash(changed) != record_hash(whole)
    try:
        members = decode_header(changed)
    except CanonicalError:
        return
    # It reads as a header: then it is another one, and it is the one spelling of that other.
    assert members != decode_header(whole)
    assert canonical(members) == changed


@BOUNDED
@given(headers(), st.sampled_from(["", "x", "\u00e9 prose", "A b"]))
def test_no_member_takes_free_text(header: Header, text: str) -> None:
    members = decode_header(header.encode())
    prose = text + " said the caller"
    for name in members:
        forged: JsonObject = {**members, name: prose}
        with pytest.raises(CanonicalError):
            decode_header(canonical(forged))


@BOUNDED
@given(headers(), st.integers(MAX_INTEGER + 1, 2**70))
def test_no_member_takes_a_number_that_readers_read_differently(
    header: Header, number: int
) -> None:
    usage = Usage(input_tokens=number, output_tokens=0, cost_micros=0)
    size = dict.fromkeys(header.size, number)
    told = [replace(header, epoch=number), replace(header, seq=number, intent=None)]
    told += [replace(header, usage=usage), *([replace(header, size=size)] if size else [])]
    for wrong in told:
        with pytest.raises(CanonicalError):
            wrong.encode()


@pytest.mark.parametrize(
    "value",
    [1.5, 2**53, -(2**53), "\ud800", {"A": 1}, {"": 1}, {"k" * 65: 1}, [[[[[[[]]]]]]], "x" * 8192],
)
def test_what_the_profile_leaves_out_has_no_bytes(value: Json) -> None:
    with pytest.raises(CanonicalError):
        canonical(value)
