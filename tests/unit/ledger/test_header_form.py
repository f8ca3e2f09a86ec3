"""A header spelled by its form has the bytes that the rules give it, or none.

Threat: Ledger tampering
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.run import Usage
from app.domain.verdict import Scrubbed, ScrubBlock
from app.ledger.canonical import MAX_HEADER_BYTES, MAX_INTEGER, CanonicalError
from app.ledger.hashing import SALT_BYTES
from app.ledger.header import Header, decode_header, encode_time
from app.ledger.header_form import Filling, Form, id_text, joined_scrub, spelled_header
from app.ledger.sealing import NONCE_BYTES
from app.ledger.writing import ChainHead, Draft, RunWriter, WriterKey
from tests.unit.ledger.test_canonical_header import BOUNDED, headers

LOG, RUN, KEY = b"l" * 16, b"r" * 16, b"k" * 32
WRITER = WriterKey(b"w" * 32, b"i" * 16)
AT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
BLOCK = ScrubBlock(
    engine="re2/1",
    rules=f"sha256:{'0' * 64}",
    policy="default/1",
    mode="mask",
    status="ok",
    counts={"email": 2},
    unscanned=1,
)


def parts(header: Header) -> tuple[Form, Filling]:
    """A header as a writer holds it."""
    names = tuple(sorted(header.commit))
    form = Form(
        actor=header.actor,
        engine=header.engine,
        kind=header.kind,
        model=header.model,
        outcome=header.outcome,
        decision=header.decision,
        sandbox=header.sandbox,
        names=names,
    )
    filling = Filling(
        approval=header.approval,
        commits=[header.commit[name].hex() for name in names],
        epoch=header.epoch,
        event_id=id_text(header.event_id),
        intent=header.intent,
        log=id_text(header.log),
        nonce=id_text(header.nonce),
        run=id_text(header.run),
        scrub=joined_scrub([] if header.scrub is None else [header.scrub]),
        seq=header.seq,
        sizes=[header.size[name] for name in names],
        tool=header.tool,
        ts=encode_time(header.at),
        usage=header.usage,
        writer=id_text(header.writer),
    )
    return form, filling


def writers_own(header: Header) -> Header:
    """As a writer may say it: no parent, and a status that joining gives."""
    scrub = None if header.scrub is None else replace(header.scrub, status="failed")
    return replace(header, parent=None, scrub=scrub)


def by_form(header: Header) -> bytes:
    return spelled_header(*parts(header))


@given(headers().map(writers_own))
@BOUNDED
def test_a_form_gives_the_bytes_that_the_rules_give(header: Header) -> None:
    assert by_form(header) == header.encode()


@given(headers().map(writers_own), headers().map(writers_own))
@BOUNDED
def test_a_form_that_is_known_takes_other_ids_and_numbers(first: Header, then: Header) -> None:
    by_form(first)
    seq = max(first.seq, then.seq)
    intent = None if then.intent is None else min(then.intent, seq)
    other = replace(
        first,
        log=then.log,
        run=then.run,
        seq=seq,
        epoch=then.epoch,
        at=then.at,
        event_id=then.event_id,
        nonce=then.nonce,
        writer=then.writer,
        intent=intent if intent is None or intent < seq else None,
        tool=then.tool,
        approval=then.approval,
        usage=then.usage,
        scrub=then.scrub,
        size={name: number for number, name in enumerate(first.size)},
        commit={name: bytes([number]) * 32 for number, name in enumerate(first.commit)},
    )
    assert by_form(other) == other.encode()


@given(headers().map(writers_own), st.integers(MAX_INTEGER + 1, 2**70) | st.integers(-9, -1))
@BOUNDED
def test_a_number_outside_the_profile_is_refused(header: Header, number: int) -> None:
    wrong_usages = [
        Usage(input_tokens=number),
        Usage(output_tokens=number),
        Usage(cost_micros=number),
    ]
    told = [replace(header, epoch=number), replace(header, seq=number, intent=None)]
    told += [replace(header, usage=usage) for usage in wrong_usages]
    told += [replace(header, intent=header.seq), replace(header, intent=-1)]
    told += [replace(header, scrub=replace(BLOCK, counts={"email": number}))]
    told += [replace(header, scrub=replace(BLOCK, unscanned=number))]
    for wrong in told:
        with pytest.raises(CanonicalError):
            by_form(wrong)


@pytest.mark.parametrize("text", ["", "%s", '"', "é prose", "A b", 'x","v":2,"x":"'])
@given(header=headers().map(writers_own))
@BOUNDED
def test_no_part_of_a_form_takes_free_text(header: Header, text: str) -> None:
    prose = f"{text} said the caller"
    told = [
        replace(header, kind=prose),
        replace(header, actor=prose),
        replace(header, engine=prose),
        replace(header, model=prose),
        replace(header, outcome=prose),
        replace(header, sandbox=prose),
        replace(header, size={prose: 1}, commit={prose: bytes(32)}),
        replace(header, scrub=replace(BLOCK, mode=prose)),
        replace(header, scrub=replace(BLOCK, counts={prose: 1})),
    ]
    if header.decision is not None:
        told.append(replace(header, decision=replace(header.decision, rules=(prose,))))
    for wrong in told:
        with pytest.raises(CanonicalError):
            by_form(wrong)


def test_a_header_of_more_than_eight_kibibytes_is_refused() -> None:
    writer = RunWriter(log=LOG, run=RUN, run_key=KEY, writer=WRITER, entropy=bytes)

    def seal(kinds: int) -> bytes:
        counts = {f"{'a' * 50}{number:03}": 1 for number in range(kinds)}
        fields = {"call": Scrubbed(value=b"{}", block=replace(BLOCK, counts=counts))}
        draft = Draft(kind="tool.finished", actor="tool", fields=fields)
        return writer.seal(ChainHead.empty(LOG, RUN), [draft], epoch=1, at=AT).records[0].header

    longest = max(kinds for kinds in range(100, 130) if len(seal(100)) + (kinds - 100) * 58 <= 8192)
    assert len(seal(longest)) <= MAX_HEADER_BYTES
    with pytest.raises(CanonicalError, match="8 KiB"):
        seal(longest + 1)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_an_id_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(CanonicalError):
        id_text(bytes(length))
    with pytest.raises(CanonicalError):
        RunWriter(log=LOG, run=bytes(length), run_key=KEY, writer=WRITER, entropy=bytes)


def test_the_blocks_of_a_record_are_joined() -> None:
    failed = replace(BLOCK, status="failed", counts={"email": 1, "secret": 4}, unscanned=2)
    fields = {
        name: Scrubbed(value=b"{}", block=block)
        for name, block in (("call", BLOCK), ("result", failed))
    }
    writer = RunWriter(log=LOG, run=RUN, run_key=KEY, writer=WRITER, entropy=bytes)
    draft = Draft(kind="tool.finished", actor="tool", fields=fields)
    sealed = writer.seal(ChainHead.empty(LOG, RUN), [draft], epoch=1, at=AT)
    said = decode_header(sealed.records[0].header)["scrub"]
    assert isinstance(said, dict)
    assert said["counts"] == {"email": 3, "secret": 4}
    assert (said["unscanned"], said["status"]) == (3, "failed")


def test_no_part_of_a_draw_is_used_twice_and_a_short_one_is_refused() -> None:
    pool = bytes(range(2 * (SALT_BYTES + NONCE_BYTES) + 32))
    fields = {name: Scrubbed(value=b"{}", block=BLOCK) for name in ("call", "result")}
    draft = Draft(kind="tool.finished", actor="tool", fields=fields)
    head = ChainHead.empty(LOG, RUN)

    def sealed_with(drawn: bytes) -> tuple[bytes, list[bytes]]:
        writer = RunWriter(
            log=LOG, run=RUN, run_key=KEY, writer=WRITER, entropy=lambda size: drawn[:size]
        )
        sealed = writer.seal(head, [draft], epoch=1, at=AT)
        return sealed.records[0].header, [item.blob for item in sealed.fields]

    header, blobs = sealed_with(pool)
    found = decode_header(header)
    assert [blob[:NONCE_BYTES] for blob in blobs] == [pool[32:44], pool[76:88]]
    assert (found["event_id"], found["nonce"]) == (pool[88:104].hex(), pool[104:].hex())
    # The salts are the other two parts: a changed byte of one changes its commitment alone.
    for at, changed in ((0, "call"), (44, "result")):
        other = bytearray(pool)
        other[at] ^= 1
        commits = decode_header(sealed_with(bytes(other))[0])["commit"]
        assert isinstance(commits, dict)
        assert isinstance(found["commit"], dict)
        assert [name for name in commits if commits[name] != found["commit"][name]] == [changed]
    with pytest.raises(CanonicalError):
        sealed_with(pool[:-1])


def test_a_time_elsewhere_is_spelled_in_utc() -> None:
    there = AT.astimezone(timezone(timedelta(hours=-7)))
    assert encode_time(there) == encode_time(AT) == "2026-01-02T03:04:05.000006Z"
