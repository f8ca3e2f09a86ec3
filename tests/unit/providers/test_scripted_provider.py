"""The scripted provider gives what was written, in order, and nothing else."""

import asyncio

import pytest

from app.domain.errors import ModelError
from app.domain.run import Usage
from app.domain.step import ModelReply, ModelRequest, Origin, StopReason, TextMessage
from app.domain.verdict import ClearedRequest, Decision, Point, PolicyRef, Verdict
from app.providers.scripted import ScriptedProvider

pytestmark = pytest.mark.anyio


def cleared(text: str) -> ClearedRequest:
    request = ModelRequest(
        model="scripted",
        system="",
        messages=(TextMessage(origin=Origin.CALLER, text=text),),
        tools=(),
        max_output_tokens=10,
        timeout_seconds=1.0,
    )
    policy = PolicyRef(policy_id="test", version=1, digest="0" * 64)
    decision = Decision(
        point=Point.LLM_REQUEST, verdict=Verdict.ALLOW, rules=(), code="", policy=policy
    )
    return ClearedRequest(request=request, decision=decision)


def reply(text: str) -> ModelReply:
    return ModelReply(text=text, calls=(), stop_reason=StopReason.END, usage=Usage())


def echo(request: ModelRequest) -> ModelReply:
    first = request.messages[0]
    assert isinstance(first, TextMessage)
    return reply(first.text)


async def test_replies_errors_and_functions_come_in_order_and_requests_are_kept() -> None:
    provider = ScriptedProvider([reply("one"), ModelError("model.timeout"), echo])
    assert (await provider.complete(cleared("a"))).text == "one"
    with pytest.raises(ModelError, match=r"model\.timeout"):
        await provider.complete(cleared("b"))
    assert (await provider.complete(cleared("c"))).text == "c"
    with pytest.raises(ModelError, match=r"model\.script_exhausted"):
        await provider.complete(cleared("d"))
    texts = [m.text for r in provider.requests for m in r.messages if isinstance(m, TextMessage)]
    assert texts == ["a", "b", "c", "d"]


async def test_the_test_decides_when_a_reply_comes() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def wait(request: ModelRequest) -> None:
        assert request.model == "scripted"
        asked.set()
        await go.wait()

    provider = ScriptedProvider([reply("late")], before_reply=wait)
    task = asyncio.create_task(provider.complete(cleared("a")))
    await asked.wait()
    assert not task.done()
    go.set()
    assert (await task).text == "late"
