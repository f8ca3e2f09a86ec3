"""The real SDK against a loopback Messages API: every way to answer, and every way to fail."""

import asyncio
import gc
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from app.domain.errors import ModelError
from app.domain.run import JsonObject
from app.domain.step import (
    Effect,
    Message,
    ModelRequest,
    Origin,
    ReplyMessage,
    ResultsMessage,
    StopReason,
    TextMessage,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from app.domain.verdict import ClearedRequest, Decision, Point, PolicyRef, Verdict
from app.providers.anthropic import anthropic_provider
from app.providers.late_provider import LateProvider
from app.providers.provider import ModelProvider
from tests.support import fake_messages_api as fake
from tests.support.fake_messages_api import Call, Scenario, fake_messages_api

pytestmark = pytest.mark.anyio

KEY = "sk-test-0123456789-secret"
PROMPT = "the patient is called Zebedee"


def cleared(
    *,
    model: str = "claude-sonnet-5-5",
    messages: tuple[Message, ...] = (TextMessage(origin=Origin.CALLER, text=PROMPT),),
    tools: tuple[ToolSpec, ...] = (),
    seconds: float = 20.0,
    max_output_tokens: int = 1024,
    system: str = "You are careful.",
) -> ClearedRequest:
    request = ModelRequest(
        model=model,
        system=system,
        messages=messages,
        tools=tools,
        max_output_tokens=max_output_tokens,
        timeout_seconds=seconds,
    )
    decision = Decision(
        point=Point.LLM_REQUEST,
        verdict=Verdict.ALLOW,
        rules=(),
        code="",
        policy=PolicyRef(policy_id="test", version=1, digest="0" * 64),
    )
    return ClearedRequest(request=request, decision=decision)


def spec(name: str) -> ToolSpec:
    parameters: JsonObject = {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "additionalProperties": False,
    }
    return ToolSpec(name=name, description="Sums.", effect=Effect.NONE, parameters=parameters)


@asynccontextmanager
async def provider_at(
    base_url: str, key: Callable[[], str] = lambda: KEY
) -> AsyncIterator[LateProvider]:
    provider = anthropic_provider(key, base_url=base_url)
    try:
        yield provider
    finally:
        await provider.close()


async def failure_of(provider: ModelProvider, request: ClearedRequest) -> str:
    with pytest.raises(ModelError) as caught:
        await provider.complete(request)
    everything = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    everything += repr(vars(caught.value)) + repr(provider)
    assert KEY not in everything
    assert "Zebedee" not in everything
    assert "sk-secret-in-a-message" not in everything
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert str(caught.value) == f"the model call failed: {caught.value.code}"
    return caught.value.code


async def test_a_text_reply_comes_back_whole_with_its_usage_and_cost() -> None:
    with fake_messages_api([fake.text("Grüße, 你好.")]) as api:
        async with provider_at(api.base_url) as provider:
            reply = await provider.complete(cleared())
    assert reply.text == "Grüße, 你好."
    assert reply.calls == ()
    assert reply.stop_reason is StopReason.END
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (25, 15)
    assert reply.usage.cost_micros == 25 * 2 + 15 * 10
    sent = api.requests[0]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.body["system"] == "You are careful."
    assert sent.body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": PROMPT}]}
    ]
    assert "tools" not in sent.body


async def test_tool_calls_come_back_in_order_with_our_names_and_whole_arguments() -> None:
    one = Call(name="math_calculator", arguments={"expression": "6*7", "note": "ü"}, call_id="t1")
    two = Call(name="never_offered", arguments={}, call_id="t2")
    with fake_messages_api([fake.tool_use(one), fake.tool_use(one, two)]) as api:
        async with provider_at(api.base_url) as provider:
            request = cleared(tools=(spec("math.calculator"),))
            single = await provider.complete(request)
            parallel = await provider.complete(request)
    call = ToolCall(
        call_id="t1", name="math.calculator", arguments={"expression": "6*7", "note": "ü"}
    )
    assert single.calls == (call,)
    assert single.text == "Let me look."
    assert single.stop_reason is StopReason.TOOL_USE
    assert parallel.calls == (call, ToolCall(call_id="t2", name="never_offered", arguments={}))
    assert api.requests[0].body["tools"][0]["name"] == "math_calculator"
    assert api.connections == 1  # one shared client


async def test_a_tool_history_is_sent_as_the_api_wants_it() -> None:
    history: tuple[Message, ...] = (
        TextMessage(origin=Origin.CALLER, text="Sum it."),
        TextMessage(origin=Origin.DATA, text="2 and 3"),
        TextMessage(origin=Origin.DATA, text="  "),
        ReplyMessage(
            text="",
            calls=(
                ToolCall(call_id="a", name="math.sum", arguments={"of": [2, 3]}),
                ToolCall(call_id="b", name="no such tool!", arguments={}),
            ),
        ),
        ResultsMessage(
            results=(
                ToolResult(call_id="a", name="math.sum", content="5"),
                ToolResult(call_id="b", name="no such tool!", content="denied", is_error=True),
            )
        ),
        TextMessage(origin=Origin.MODEL, text="another agent says hello"),
        ReplyMessage(text="  "),
    )
    with fake_messages_api([fake.text("5")]) as api:
        async with provider_at(api.base_url) as provider:
            await provider.complete(cleared(messages=history, tools=(spec("math.sum"),), system=""))
    sent = api.requests[0].body
    assert "system" not in sent
    assert sent["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Sum it."}, {"type": "text", "text": "2 and 3"}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "a", "name": "math_sum", "input": {"of": [2, 3]}},
                {"type": "tool_use", "id": "b", "name": "unknown_tool", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "5", "is_error": False},
                {"type": "tool_result", "tool_use_id": "b", "content": "denied", "is_error": True},
                {"type": "text", "text": "another agent says hello"},
            ],
        },
    ]


BROKEN: dict[str, tuple[Scenario, str]] = {
    "400": (fake.status(400), "model.invalid_request"),
    "401": (fake.status(401), "model.authentication"),
    "403": (fake.status(403), "model.authentication"),
    "404": (fake.status(404), "model.invalid_request"),
    "429": (fake.status(429, retry_after=1), "model.rate_limited"),
    "500": (fake.status(500), "model.server_error"),
    "503": (fake.status(503), "model.server_error"),
    "529": (fake.status(529), "model.overloaded"),
    "redirect": (fake.status(307), "model.malformed_reply"),
    "hung up": (fake.hung_up(), "model.stream_broken"),
    "truncated stream": (fake.truncated(), "model.stream_broken"),
    "no message_stop": (fake.without_message_stop(), "model.stream_broken"),
    "not a stream": (Scenario(chunks=(b"<html>hello</html>",)), "model.stream_broken"),
    "malformed event": (fake.malformed_event(), "model.malformed_reply"),
    "not utf-8": (Scenario(chunks=(b"event: x\ndata: \xff\xfe\n\n",)), "model.malformed_reply"),
    "error event, overloaded": (fake.error_event(), "model.overloaded"),
    "error event, api": (fake.error_event("api_error"), "model.server_error"),
    "unknown stop reason": (fake.text(stop_reason="because"), "model.malformed_reply"),
    "tool stop, no tool": (fake.text(stop_reason="tool_use"), "model.malformed_reply"),
    "input is a list": (fake.raw_tool_input("[1]"), "model.malformed_reply"),
    "input is cut": (fake.raw_tool_input('{"a": '), "model.malformed_reply"),
    "input is NaN": (fake.raw_tool_input('{"a": NaN}'), "model.malformed_reply"),
}


@pytest.mark.parametrize(("scenario", "code"), BROKEN.values(), ids=list(BROKEN))
async def test_what_is_not_a_whole_reply_is_a_typed_error_after_one_request(
    scenario: Scenario, code: str
) -> None:
    with fake_messages_api([scenario, fake.text("a retry would read this")]) as api:
        async with provider_at(api.base_url) as provider:
            assert await failure_of(provider, cleared()) == code
        assert len(api.requests) == 1


@pytest.mark.parametrize("scenario", [fake.slow(), fake.silent()], ids=["mid-stream", "silent"])
async def test_the_deadline_ends_a_slow_reply_and_closes_the_connection(scenario: Scenario) -> None:
    with fake_messages_api([scenario]) as api:
        async with provider_at(api.base_url) as provider:
            await provider.warm_up()
            assert await failure_of(provider, cleared(seconds=0.3)) == "model.timeout"
            assert await asyncio.to_thread(api.client_gone.wait, 10)
        assert len(api.requests) == 1


@pytest.mark.parametrize("scenario", [fake.slow(), fake.silent()], ids=["mid-stream", "silent"])
async def test_cancellation_comes_through_and_closes_the_connection(scenario: Scenario) -> None:
    with fake_messages_api([scenario]) as api:
        async with provider_at(api.base_url) as provider:
            task = asyncio.create_task(provider.complete(cleared()))
            signal = api.streaming if scenario.answers else api.arrived
            assert await asyncio.to_thread(signal.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(api.client_gone.wait, 10)
            gc.collect()  # a stream left behind would warn here, and warnings are errors


async def test_after_a_failure_the_same_client_answers_again() -> None:
    with fake_messages_api([fake.truncated(), fake.malformed_event(), fake.text("back")]) as api:
        async with provider_at(api.base_url) as provider:
            await failure_of(provider, cleared())
            await failure_of(provider, cleared())
            assert (await provider.complete(cleared())).text == "back"


async def test_many_calls_at_once_share_the_client_and_do_not_mix() -> None:
    script = {
        "claude-opus-5-5": fake.text("from opus"),
        "claude-haiku-5-5": fake.text("from haiku"),
    }
    models = [*script] * 10
    with fake_messages_api(script) as api:
        async with provider_at(api.base_url) as provider:
            replies = await asyncio.gather(
                *(provider.complete(cleared(model=model)) for model in models)
            )
    assert [reply.text for reply in replies] == ["from opus", "from haiku"] * 10


async def test_a_reply_cut_at_the_limit_says_so_and_hands_on_no_call() -> None:
    cut = Scenario(
        chunks=(
            fake.start(),
            *fake.raw_tool_block(0, Call(name="calculator", arguments={}), '{"expression": "1'),
            *fake.finish("max_tokens"),
        )
    )
    with fake_messages_api([cut]) as api:
        async with provider_at(api.base_url) as provider:
            reply = await provider.complete(cleared(max_output_tokens=999_999_999))
    assert reply.stop_reason is StopReason.MAX_TOKENS
    assert reply.calls == ()
    assert api.requests[0].body["max_tokens"] == 128_000


async def test_thinking_is_left_out_of_the_text() -> None:
    chunks = (fake.start(), *fake.thinking_block(0), *fake.text_block(1, "42"))
    with fake_messages_api([Scenario(chunks=(*chunks, *fake.finish("end_turn")))]) as api:
        async with provider_at(api.base_url) as provider:
            assert (await provider.complete(cleared(model="claude-opus-5-5"))).text == "42"


@pytest.mark.parametrize("model", ["gpt-9", "claude-unheard-of", "offline", "scripted", ""])
async def test_an_unknown_model_is_refused_before_anything_is_sent(model: str) -> None:
    with fake_messages_api([fake.text()]) as api:
        async with provider_at(api.base_url) as provider:
            assert await failure_of(provider, cleared(model=model)) == "model.unknown_model"
        assert api.requests == []


@pytest.mark.parametrize("key", ["", "two words", "line\r\nx-evil: 1", "schlüssel"])
async def test_a_key_that_is_no_key_is_refused_before_anything_is_sent(key: str) -> None:
    with fake_messages_api([fake.text()]) as api:
        async with provider_at(api.base_url, lambda: key) as provider:
            assert await failure_of(provider, cleared()) == "model.authentication"
        assert api.requests == []


async def test_a_request_that_the_api_cannot_read_is_refused_before_anything_is_sent() -> None:
    blank = (TextMessage(origin=Origin.CALLER, text=" "),)
    clash = (spec("a.b"), spec("a_b"))
    with fake_messages_api([fake.text()]) as api:
        async with provider_at(api.base_url) as provider:
            for request in (
                cleared(messages=blank),
                cleared(tools=clash),
                cleared(max_output_tokens=0),
            ):
                assert await failure_of(provider, request) == "model.invalid_request"
        assert api.requests == []


async def test_a_rotated_key_is_used_by_the_next_request() -> None:
    keys = iter(["sk-old", "sk-new"])
    with fake_messages_api([fake.text(), fake.text()]) as api:
        async with provider_at(api.base_url, lambda: next(keys)) as provider:
            await provider.complete(cleared())
            await provider.complete(cleared())
    sent = [request.headers["authorization"] for request in api.requests]
    assert sent == ["Bearer sk-old", "Bearer sk-new"]


async def test_the_environment_neither_redirects_prompts_nor_supplies_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fake_messages_api([fake.text()]) as api, fake_messages_api([fake.text()]) as other:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", other.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-from-the-environment")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-from-the-environment")
        async with provider_at(api.base_url) as provider:
            await provider.complete(cleared())
        assert other.requests == []
    assert "environment" not in json.dumps(dict(api.requests[0].headers))


async def test_a_redirect_does_not_carry_the_prompt_elsewhere() -> None:
    with fake_messages_api([fake.text()]) as other:
        away = Scenario(status=307, headers=(("location", f"{other.base_url}/v1/messages"),))
        with fake_messages_api([away]) as api:
            async with provider_at(api.base_url) as provider:
                assert await failure_of(provider, cleared()) == "model.malformed_reply"
        assert other.requests == []


async def test_nobody_listening_is_unreachable() -> None:
    with fake_messages_api([]) as api:
        url = api.base_url
    async with provider_at(url) as provider:
        assert await failure_of(provider, cleared()) == "model.unreachable"


async def test_warming_up_and_closing_twice_sends_nothing() -> None:
    with fake_messages_api([fake.text()]) as api:
        async with provider_at(api.base_url) as provider:
            await asyncio.gather(provider.warm_up(), provider.warm_up())
            await provider.close()
            await provider.close()
        assert api.requests == []


async def test_no_prompt_reaches_a_log_even_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with fake_messages_api([fake.text("quiet")]) as api:
        async with provider_at(api.base_url) as provider:
            await provider.complete(cleared())
    assert "Zebedee" not in caplog.text
    assert KEY not in caplog.text
