"""A header that is known by the shape of another one keeps every rule, and says what it says.

Threat: Ledger tampering
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.hashing import record_hash
from app.ledger.header import FIELD_NUMBERS, Header, encode_time
from app.ledger.header_shape import HeaderShapes, Told
from tests.unit.ledger.test_canonical_header import BOUNDED, headers
from tests.unit.ledger.test_header_glance import slowly
from tests.unit.ledger.test_verify_run import LOG, WHOLE

VECTORS = Path(__file__).parents[2] / "contract" / "vectors"
USUAL = [record.header or b"" for record in WHOLE.records]
IS_ID = re.compile(rb"[0-9a-f]{32}").fullmatch
Members = dict[str, object]


def read(log: bytes, *data: bytes, like: Members | None = None) -> Told | None:
    """What headers say that have the kind, seq and epoch of the first; None if it is not known."""
    members = json.loads(data[0]) if like is None else like
    kind, seq, epoch = members["kind"], members["seq"], members["epoch"]
    assert isinstance(kind, str)
    assert isinstance(seq, int)
    assert isinstance(epoch, int)
    told = Told()
    count = len(data)
    is_known = HeaderShapes(log).tell(told, epoch, data, [kind] * count, [seq] * count)
    if not is_known or not told.is_spelled() or told.times() is None:
        return None
    # The caller compares these with the columns.
    has_ids = all(IS_ID(name) for name in told.runs + told.writers)
    return told if has_ids and set(told.seqs) == {b"%d" % seq} else None


def vectors() -> Sequence[tuple[str, bytes]]:
    found = []
    for path in (VECTORS / "header.json", VECTORS / "log" / "header.json"):
        for vector in json.loads(path.read_bytes())["vectors"]:
            header = bytes.fromhex(vector["output"]["header"])
            found.append((vector["name"], header))
    return found


def test_the_headers_of_runs_have_shapes_that_say_their_place() -> None:
    for data in USUAL:
        told = read(LOG, data, data)
        assert told is not None
        says = json.loads(data)
        assert told.runs == [says["run"].encode()] * 2
        assert told.seqs == [b"%d" % says["seq"]] * 2
        assert told.writers == [says["writer"].encode()] * 2
        assert [encode_time(at) for at in told.times() or []] == [says["ts"]] * 2
        assert told.record_hashes == [record_hash(data)] * 2
        assert told.fields == [sorted(FIELD_NUMBERS[name] for name in says["commit"])] * 2


@pytest.mark.parametrize(("name", "data"), vectors(), ids=[name for name, _ in vectors()])
def test_no_published_header_that_is_none_is_taken_after_one_that_is(
    name: str, data: bytes
) -> None:
    assert name
    for _, good in vectors():
        if slowly(good):
            like = json.loads(good)
            log = bytes.fromhex(like["log"])
            if read(log, good, data, like=like) is not None:
                assert slowly(data)


def change(data: st.DataObject, raw: bytes) -> bytes:
    """A few other bytes, of the kinds that headers have."""
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        changed[place] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789abcdefABF",'))
    return bytes(changed)


@pytest.mark.parametrize("at", range(len(USUAL)))
@given(data=st.data())
@BOUNDED
def test_no_changed_byte_passes_that_the_rules_would_refuse(at: int, data: st.DataObject) -> None:
    changed = change(data, USUAL[at])
    told = read(LOG, USUAL[at], changed)
    if told is not None:
        assert slowly(changed), changed
        says = json.loads(changed)
        assert told.runs[1] == says["run"].encode()
        assert told.writers[1] == says["writer"].encode()
        assert told.seqs[1] == b"%d" % says["seq"]
        assert encode_time((told.times() or [])[1]) == says["ts"]
        assert (says["kind"], says["epoch"]) == tuple(
            json.loads(USUAL[at])[name] for name in ("kind", "epoch")
        )


@given(header=headers(), data=st.data())
@BOUNDED
def test_any_header_is_a_pattern_for_none_but_headers(header: Header, data: st.DataObject) -> None:
    own = header.encode()
    if read(header.log, own) is None:  # too unusual: the rules themselves decide
        return
    changed = change(data, own)
    if read(header.log, own, changed) is not None:
        assert slowly(changed), changed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"event_id":"', b'"event_id":"g'),
        (b'"event_id":"', b'"event_id":"A'),
        (b'"nonce":"', b'"nonce":"-'),
        (b'"reply":"', b'"reply":"X'),
        (b'"run":"', b'"run":" '),
        (b'"size":{"reply":3}', b'"size":{"reply":+}'),
        (b'"size":{"reply":3}', b'"size":{"reply": }'),
        (b'"intent":1', b'"intent":2'),
        (b'"intent":1', b'"intent":-'),
        (b'"v":1', b'"v":2'),
        (b'"kind":"llm.r', b'"kind":"llm.q'),
        (b'"epoch":2', b'"epoch":3'),
        (b'"actor":"model"', b'"actor":"modem"'),
        (b'"ts":"2026-11-24T', b'"ts":"2026-W48-2T'),
        (b'"ts":"2026-11-24T', b'"ts":"2026-11-24 '),
        (b'"ts":"2026-11-24T', b'"ts":"2026-13-24T'),
    ],
)
def test_what_may_differ_is_of_its_kind(old: bytes, new: bytes) -> None:
    data = USUAL[2]
    place = data.index(old)
    changed = data[:place] + new + data[place + len(new) :]
    assert read(LOG, data, data) is not None
    assert read(LOG, data, changed, like=json.loads(data)) is None


def test_a_number_in_another_spelling_is_none() -> None:
    data = USUAL[2].replace(b'"size":{"reply":3}', b'"size":{"reply":13}')
    other = data.replace(b'"size":{"reply":13}', b'"size":{"reply":03}')
    assert read(LOG, data, data) is not None
    assert read(LOG, data, other) is None


def test_an_empty_value_has_the_size_nought() -> None:
    data = USUAL[2].replace(b'"size":{"reply":3}', b'"size":{"reply":0}')
    assert read(LOG, data, USUAL[2]) is not None


def test_another_logs_header_is_not_of_this_log() -> None:
    assert read(bytes(16), USUAL[0]) is None


def test_many_shapes_do_not_fill_the_memory() -> None:
    shapes, told = HeaderShapes(LOG), Told()
    for epoch in range(1000, 4000):
        data = USUAL[2].replace(b'"epoch":2', b'"epoch":%d' % epoch)
        assert shapes.tell(told, epoch, [data], ["llm.responded"], [2])
        assert shapes.count <= 2048
    assert len(told.record_hashes) == 3000
    assert shapes.tell(told, 2, [USUAL[2]], ["llm.responded"], [2])


def test_many_shapes_of_one_length_do_not_take_a_look_each() -> None:
    shapes, told = HeaderShapes(LOG), Told()
    for number in range(100, 200):
        data = USUAL[2].replace(b'"outcome":null', b'"outcome":"%d"' % number)
        assert shapes.tell(told, 2, [data], ["llm.responded"], [2])
    assert len(told.record_hashes) == 100
    assert shapes.count <= 8
