"""The one look at a header never takes what the rules refuse, and says what the header says.

Threat: Ledger tampering
"""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.canonical import CanonicalError, parse_canonical, spelled
from app.ledger.header import Header, _check_members, decode_header, glance
from tests.unit.ledger.test_canonical_header import BOUNDED, headers
from tests.unit.ledger.test_verify_run import WHOLE

USUAL = [record.header or b"" for record in WHOLE.records]


def slowly(data: bytes) -> bool:
    """What the rules say, without the pattern."""
    try:
        members = parse_canonical(data)
        if not isinstance(members, dict):
            return False
        _check_members(members)
    except CanonicalError:
        return False
    return True


def test_the_headers_of_runs_are_known_at_a_glance() -> None:
    for data in USUAL:
        seen = glance(data)
        assert seen is not None
        told = json.loads(data)
        assert seen._asdict() == {
            name: str(told[name]).encode()
            for name in ("epoch", "kind", "log", "run", "seq", "ts", "writer")
        }


@given(header=headers())
@BOUNDED
def test_a_header_is_spelled_as_the_slow_way_spells_it(header: Header) -> None:
    data = header.encode()
    assert data == spelled(json.loads(data))
    assert slowly(data)


@pytest.mark.parametrize("at", range(len(USUAL)))
@given(data=st.data())
@BOUNDED
def test_no_changed_byte_passes_that_the_rules_would_refuse(at: int, data: st.DataObject) -> None:
    raw = bytearray(USUAL[at])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["set", "cut", "double", "put"])):
            case "set":
                raw[place] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[place : place + data.draw(st.integers(1, 40))]
            case "double":
                length = data.draw(st.integers(1, 90))
                raw[place:place] = raw[place : place + length]
            case _:
                raw[place:place] = data.draw(st.sampled_from([b",", b'"', b"{", b"}", b"0", b"\n"]))
    changed = bytes(raw)
    if glance(changed) is not None:
        assert slowly(changed), changed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"commit":{', b'"commit":{"note":"' + b"0" * 64 + b'",'),  # out of order, or twice
        (b'"v":1', b'"v":1.0'),
        (b'"v":1', b'"v":2'),
        (b'"intent":1', b'"intent":2'),
        (b'"intent":1', b'"intent":01'),
        (b'"seq":2', b'"seq":99999999999999999'),
        (b'"engine":null', b'"engine":"a b"'),
        (b'"usage":null', b'"usage":{"cost_micros":1,"input_tokens":2}'),
        (b'"scrub":{"counts":{}', b'"scrub":{"counts":{"B":1}'),
        (b'"mode":"mask"', b'"mode":"ma\\u0073k"'),
        (b'"size":{"reply":3}', b'"size":{"reply":3,"reply":3}'),
        (b'"size":{"reply":3}', b'"size":{"notes":3}'),
    ],
)
def test_what_the_rules_refuse_is_refused(old: bytes, new: bytes) -> None:
    data = USUAL[2]
    assert old in data, data
    changed = data.replace(old, new, 1)
    assert glance(changed) is None
    with pytest.raises(CanonicalError):
        decode_header(changed)


def test_a_long_header_is_refused() -> None:
    header = replace(WHOLE.records[0]).header or b""
    rules = b'"rules":"sha256:'
    assert rules in header
    counts = b",".join(b'"%s%03d":1' % (b"a" * 50, number) for number in range(200))
    changed = header.replace(b'"counts":{}', b'"counts":{' + counts + b"}")
    assert len(changed) > 8192
    assert glance(changed) is None
    with pytest.raises(CanonicalError):
        decode_header(changed)
