"""Spells headers of records to be: what repeats from one to the next is checked and spelled once.

The form of a header is all of it but ids, hashes, numbers, its time and its scrub block. It is held
against the rules when it is first needed; what is filled in later is of a kind that cannot break
them, or is looked at each time. The bytes are those of `Header.encode`.

Source: docs/ledger-format.md sections 2 and 3.

Threat: Ledger tampering
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from app.domain.run import Usage
from app.domain.verdict import Decision, ScrubBlock
from app.ledger.canonical import MAX_HEADER_BYTES, MAX_INTEGER, CanonicalError
from app.ledger.header import Header, scrub_spelled

_ID, _HASH = bytes(16), bytes(32)
_ID_BYTES = len(_ID)
_FORMS = 2048  # some dozens are usual
_BLOCKS = 4096
_codes = attrgetter("engine", "rules", "policy", "mode", "status", "unscanned")
_Block: TypeAlias = tuple[str, str, str, str, str, int, tuple[tuple[str, int], ...]]


class Form(NamedTuple):
    """What decides how a header is spelled, but for what is filled in. `names` are its fields."""

    actor: str
    engine: str | None
    kind: str
    model: str | None
    outcome: str | None
    decision: Decision | None
    sandbox: str | None
    names: tuple[str, ...]  # sorted


class Filling(NamedTuple):
    """What is filled in, in the order of the header; `commits` and `sizes` in that of `names`."""

    approval: bytes | None
    commits: Sequence[str]  # hex
    epoch: int
    event_id: str  # hex, as are the other ids
    intent: int | None
    log: str
    nonce: str
    run: str
    scrub: str  # as `joined_scrub` gives it
    seq: int
    sizes: Sequence[int]
    tool: bytes | None
    ts: str  # as `encode_time` gives it
    usage: Usage | None
    writer: str


def spelled_header(form: Form, filling: Filling) -> bytes:
    """The canonical bytes of a header. CanonicalError when a member breaks its rule."""
    seq, intent, usage = filling.seq, filling.intent, filling.usage
    if not (0 <= filling.epoch <= MAX_INTEGER and 0 <= seq <= MAX_INTEGER):
        raise CanonicalError("a header counts from 0 to 2^53-1")
    if intent is not None and not 0 <= intent < seq:
        raise CanonicalError("an intent comes before its effect")
    data = (
        _pattern(form)
        % (
            "null" if filling.approval is None else f'"{id_text(filling.approval)}"',
            *filling.commits,
            filling.epoch,
            filling.event_id,
            "null" if intent is None else intent,
            filling.log,
            filling.nonce,
            filling.run,
            filling.scrub,
            seq,
            *filling.sizes,
            "null" if filling.tool is None else f'"{filling.tool.hex()}"',
            filling.ts,
            "null" if usage is None else _usage(usage),
            filling.writer,
        )
    ).encode("ascii")
    if len(data) > MAX_HEADER_BYTES:
        raise CanonicalError("longer than 8 KiB")
    return data


def id_text(value: bytes) -> str:
    """An id as a header spells it. CanonicalError unless it has sixteen bytes."""
    if len(value) != _ID_BYTES:
        raise CanonicalError("an id has sixteen bytes")
    return value.hex()


def joined_scrub(blocks: Iterable[ScrubBlock]) -> str:
    """One block for all fields of a record, spelled: counts added, failed when any failed."""
    return _joined(tuple([(*_codes(block), tuple(block.counts.items())) for block in blocks]))


@lru_cache(maxsize=_BLOCKS)
def _joined(blocks: tuple[_Block, ...]) -> str:
    if not blocks:
        return "null"
    counts: dict[str, int] = {}
    for *_, counted in blocks:
        for kind, count in counted:
            counts[kind] = counts.get(kind, 0) + count
    engine, rules, policy, mode, *_ = blocks[0]
    return scrub_spelled(
        ScrubBlock(
            engine=engine,
            rules=rules,
            policy=policy,
            mode=mode,
            status="ok" if all(status == "ok" for *_, status, _, _ in blocks) else "failed",
            counts=counts,
            unscanned=sum(unscanned for *_, unscanned, _ in blocks),
        )
    )


@lru_cache(maxsize=_FORMS)
def _pattern(form: Form) -> str:
    """The form with a place for each filling. CanonicalError when a member breaks its rule."""
    empty = Header(
        log=_ID,
        run=_ID,
        seq=0,
        epoch=0,
        kind=form.kind,
        at=datetime.fromtimestamp(0, UTC),
        event_id=_ID,
        nonce=_ID,
        actor=form.actor,
        writer=_ID,
        intent=None,
        parent=None,
        decision=form.decision,
        model=form.model,
        engine=form.engine,
        tool=None,
        usage=None,
        outcome=form.outcome,
        sandbox=form.sandbox,
        approval=None,
        scrub=None,
        size=dict.fromkeys(form.names, 0),
        commit=dict.fromkeys(form.names, _HASH),
    )
    # No rule lets a percent sign into a header.
    pattern = empty.encode().decode("ascii")
    for name in form.names:
        pattern = _opened(pattern, f'"{name}":"{_HASH.hex()}"', f'"{name}":"%s"')
    sizes = ",".join([f'"{name}":0' for name in form.names])
    placed = ",".join([f'"{name}":%d' for name in form.names])
    for old, new in (
        ('"approval":null,', '"approval":%s,'),
        ('"epoch":0,', '"epoch":%d,'),
        (f'"event_id":"{_ID.hex()}","intent":null,', '"event_id":"%s","intent":%s,'),
        (f'"log":"{_ID.hex()}",', '"log":"%s",'),
        (f'"nonce":"{_ID.hex()}",', '"nonce":"%s",'),
        (f'"run":"{_ID.hex()}",', '"run":"%s",'),
        ('"scrub":null,"seq":0,', '"scrub":%s,"seq":%d,'),
        (f'"size":{{{sizes}}},', f'"size":{{{placed}}},'),
        ('"tool":null,"ts":"1970-01-01T00:00:00.000000Z",', '"tool":%s,"ts":"%s",'),
        (f'"usage":null,"v":1,"writer":"{_ID.hex()}"', '"usage":%s,"v":1,"writer":"%s"'),
    ):
        pattern = _opened(pattern, old, new)
    return pattern


def _opened(pattern: str, old: str, new: str) -> str:
    """A place made in the pattern, where there is exactly one: quotes keep values from posing."""
    if pattern.count(old) != 1:
        raise CanonicalError("a header member is missing or there twice")
    return pattern.replace(old, new)


def _usage(usage: Usage) -> str:
    counts = (usage.cost_micros, usage.input_tokens, usage.output_tokens)
    if not all(0 <= count <= MAX_INTEGER for count in counts):
        raise CanonicalError("header member 'usage' breaks its rule")
    cost, read, written = counts
    return f'{{"cost_micros":{cost},"input_tokens":{read},"output_tokens":{written}}}'
