"""No stream of events but a whole, understood one becomes a reply."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import ModelError
from app.domain.step import ModelReply, StopReason
from app.providers.message_stream import ReplyAssembler
from app.providers.prices import MODELS
from app.providers.provider import ModelFailure
from app.providers.wire.reply_json import parse_object
from tests.support import fake_messages_api as fake
from tests.support.fake_messages_api import Call

CALL = Call(name="calculator", arguments={"expression": "6*7"})
WHOLE = fake.tool_use(CALL).chunks


def assemble(chunks: tuple[bytes, ...]) -> ModelReply:
    assembler = ReplyAssembler(MODELS["claude-sonnet-5-5"])
    for chunk in chunks:
        _, _, data = chunk.decode().rstrip("\n").partition("\ndata: ")
        assembler.take(data)
    return assembler.finished()


def outcome_of(chunks: tuple[bytes, ...]) -> tuple[str, ModelReply | None]:
    try:
        return "", assemble(chunks)
    except ModelError as error:
        return ModelFailure(error.code), None


def code_of(chunks: tuple[bytes, ...]) -> str:
    code, reply = outcome_of(chunks)
    assert reply is None
    return code


def test_the_whole_stream_is_a_reply() -> None:
    reply = assemble(WHOLE)
    assert reply.stop_reason is StopReason.TOOL_USE
    assert reply.calls[0].arguments == {"expression": "6*7"}


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_no_beginning_of_a_stream_is_a_reply(length: int) -> None:
    assert code_of(WHOLE[:length]) == "model.stream_broken"


@settings(max_examples=400, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=len(WHOLE) - 1), max_size=30))
def test_events_in_any_order_are_the_reply_or_a_typed_error(order: list[int]) -> None:
    chunks = tuple(WHOLE[at] for at in order)
    code, reply = outcome_of(chunks)
    if reply is None:
        assert code in {"model.stream_broken", "model.malformed_reply"}
    else:
        assert reply.calls  # this stream stops for a tool, so a reply without one is not whole


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
_fields = st.sampled_from(["type", "index", "message", "content_block", "delta", "usage"])


@settings(max_examples=400, deadline=None)
@given(st.integers(min_value=0, max_value=len(WHOLE) - 1), _fields, _json)
def test_a_field_of_any_other_shape_never_raises_anything_untyped(
    at: int, field: str, value: object
) -> None:
    _, _, data = WHOLE[at].decode().partition("\ndata: ")
    changed = {**json.loads(data), field: value}
    chunk = f"event: x\ndata: {json.dumps(changed)}\n\n".encode()
    code, reply = outcome_of((*WHOLE[:at], chunk, *WHOLE[at + 1 :]))
    assert (code == "") == (reply is not None)


def test_new_kinds_of_events_and_blocks_are_passed_over() -> None:
    new_event = fake.event("message_mood", mood="good")
    assert assemble((WHOLE[0], new_event, *fake.thinking_block(9), *WHOLE[1:])).calls


def test_a_block_left_open_or_a_second_start_is_malformed() -> None:
    assert code_of((*WHOLE[:-3], *WHOLE[-2:])) == "model.malformed_reply"
    assert code_of((WHOLE[0], *WHOLE)) == "model.malformed_reply"
    assert code_of((*WHOLE, WHOLE[1])) == "model.malformed_reply"


def test_two_calls_with_one_id_are_malformed() -> None:
    assert code_of(fake.tool_use(CALL, CALL).chunks) == "model.malformed_reply"


def test_calls_of_a_reply_that_did_not_stop_for_them_are_not_handed_on() -> None:
    assert code_of((*WHOLE[:-2], *fake.finish("end_turn"))) == "model.malformed_reply"
    for reason, stop in (("max_tokens", StopReason.MAX_TOKENS), ("refusal", StopReason.REFUSAL)):
        reply = assemble((*WHOLE[:-2], *fake.finish(reason)))
        assert (reply.calls, reply.stop_reason) == ((), stop)


def test_a_reply_larger_than_any_model_writes_is_refused_while_it_comes() -> None:
    assembler = ReplyAssembler(MODELS["claude-sonnet-5-5"])
    nearly_a_mebibyte = json.dumps({"type": "ping", "filling": "x" * (1024 * 1024 - 40)})
    for _ in range(8):
        assembler.take(nearly_a_mebibyte)
    with pytest.raises(ModelError, match=r"model\.malformed_reply"):
        assembler.take(nearly_a_mebibyte)


@pytest.mark.parametrize(
    "written",
    [
        "[]",
        "1",
        "null",
        '"x"',
        "{",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        '{"a": ' + "9" * 5_000 + "}",
        '{"a": 1, "a": 2}',
        '{"a": ' + "[" * 64 + "]" * 64 + "}",
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=lambda written: written[:16],
)
def test_arguments_that_could_not_be_recorded_are_malformed(written: str) -> None:
    with pytest.raises(ModelError, match=r"model\.malformed_reply"):
        parse_object(written)


def test_text_that_could_not_be_written_down_is_malformed() -> None:
    half = b'event: x\ndata: {"type": "content_block_delta", "index": 0, "delta": '
    half += b'{"type": "text_delta", "text": "\\ud83d"}}\n\n'
    chunks = fake.text("Hi").chunks
    assert code_of((*chunks[:3], half, *chunks[3:])) == "model.malformed_reply"
