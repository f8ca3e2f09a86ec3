"""Budgets and capabilities over HTTP: the tenant's file caps them, and no call goes beyond them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.run import Usage
from app.domain.step import ModelReply, ModelRequest, StopReason, ToolCall
from app.providers.prices import model_named, upper_bound
from app.providers.scripted import Scripted, ScriptedProvider
from app.wiring import Overrides
from tests.integration.gate.gate_scenes import (
    ENDED,
    USUAL,
    files_under,
    rows,
    run_to_end,
    served_by_the_fake,
)
from tests.support.databases import Roles
from tests.support.fake_messages_api import Call, text, tool_use
from tests.support.live_server import LiveServer, live_server

TENANT = """
capabilities = ["calculator", "read_file"]
[max_budget]
max_steps = 2
max_tokens = 30000
max_cost_micros = 70000
max_wall_seconds = 7
"""


@pytest.fixture(scope="module")
def capped(roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose tenant `acme` has a file and whose tenant `other` has none."""
    config = tmp_path_factory.mktemp("config")
    (config / "tenants").mkdir()
    (config / "tenants" / "acme.toml").write_text(TENANT)
    with live_server(roles, MESHFLOW_CONFIG_DIR=str(config)) as live:
        yield live


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": ["write_file"]},
        {"tools": ["calculator", "write_file"]},
        {"capabilities": {"tools": ["write_file"]}},
        {"tools": ["calculator"], "capabilities": {"tools": ["calculator", "list_files"]}},
        {"capabilities": {"tools": ["shell"]}},
    ],
)
def test_a_tool_that_the_tenants_file_does_not_give_is_refused_at_the_door(
    capped: LiveServer, asked: dict[str, Any]
) -> None:
    with capped.client("acme") as client:
        answer = client.post("/v1/runs", json={"task": "1+1", **asked})
        assert (answer.status_code, answer.json()["rules"]) == (403, ["r2.capability"])
        run = client.get(f"/v1/runs/{answer.json()['run_id']}").json()
    assert (run["status"], run["error"]["code"]) == ("blocked", "capability:not_granted")
    assert run["finished_at"] is not None


def test_the_same_tool_is_given_to_a_tenant_without_a_file(capped: LiveServer) -> None:
    with capped.client("other") as client:
        ending = run_to_end(client, {"task": "1+1", "tools": ["write_file", "calculator"]})
    assert ending.status == "succeeded"


def test_what_the_agent_brings_is_cut_to_the_tenants_file(capped: LiveServer) -> None:
    with capped.client("acme") as client:
        ending = run_to_end(client, {"task": "1+1"})
    assert ending.run["task"]["tools"] == ["calculator", "read_file"]


def test_a_budget_is_the_least_of_what_was_asked_and_what_the_tenant_may_use(
    capped: LiveServer,
) -> None:
    asked = {"max_steps": 900, "max_tokens": 20_000, "max_wall_seconds": 5}
    with capped.client("acme") as client:
        cut = run_to_end(client, {"task": "1+1", "budget": asked}).run["task"]["budget"]
        plain = run_to_end(client, {"task": "1+1"}).run["task"]["budget"]
    assert cut == {
        "max_steps": 2,
        "max_tokens": 20_000,
        "max_cost_micros": 70_000,
        "max_wall_seconds": 5,
    }
    assert plain == {
        "max_steps": 2,
        "max_tokens": 30_000,
        "max_cost_micros": 70_000,
        "max_wall_seconds": 7,
    }


def test_a_run_ends_at_its_last_step(roles: Roles) -> None:
    sums = [
        tool_use(Call(name="calculator", arguments={"expression": "1+1"}, call_id=f"toolu_{n}"))
        for n in range(5)
    ]
    task = {"instructions": "Add for ever.", "budget": {"max_steps": 3}}
    with served_by_the_fake(roles, [*sums, text()]) as (live, api), live.client() as client:
        ending = run_to_end(client, task)
    assert (ending.status, ending.code) == ("blocked", "budget:steps")
    assert len(api.requests) == 3
    assert ending.run["usage"]["steps"] == 3


@pytest.mark.parametrize(
    ("budget", "code"),
    [({"max_tokens": 500}, "budget:tokens"), ({"max_cost_micros": 100}, "budget:cost")],
)
def test_a_call_that_could_overrun_is_never_sent(
    roles: Roles, budget: dict[str, int], code: str
) -> None:
    task = {"instructions": "Say hello.", "budget": budget}
    with served_by_the_fake(roles, USUAL) as (live, api), live.client() as client:
        ending = run_to_end(client, task)
        made = files_under(live.workspace)
    assert (ending.status, ending.code) == ("blocked", code)
    assert api.requests == []
    assert made == {}
    assert ending.run["cost_micros"] == 0


def test_a_text_in_a_script_of_many_bytes_is_reserved_for_by_its_bytes(roles: Roles) -> None:
    # 30,000 characters that are some 30,000 tokens: counted by characters they would look like
    # 10,000, and a call that cannot fit would be sent.
    task = {"instructions": "語" * 30_000, "tools": [], "budget": {"max_tokens": 20_000}}
    with served_by_the_fake(roles, USUAL) as (live, api), live.client() as client:
        ending = run_to_end(client, task)
    assert (ending.status, ending.code) == ("blocked", "budget:tokens")
    assert api.requests == []


def _using_all_that_was_reserved(request: ModelRequest) -> ModelReply:
    price = model_named("scripted")
    assert price is not None
    size = sum(len(str(message)) for message in request.messages)
    taken = min(400 + size // 8, 900)
    cost = upper_bound(price, taken, request.max_output_tokens)
    usage = Usage(input_tokens=taken, output_tokens=request.max_output_tokens, cost_micros=cost)
    call = ToolCall(call_id="c", name="calculator", arguments={"expression": "1+1"})
    return ModelReply(text="", calls=(call,), stop_reason=StopReason.TOOL_USE, usage=usage)


@pytest.mark.parametrize("cost", [0, 60_000, 100_000, 150_000, 1_000_000])
def test_a_run_never_spends_more_than_its_money(roles: Roles, cost: int) -> None:
    replies: list[Scripted] = [_using_all_that_was_reserved] * 20
    provider = ScriptedProvider(replies)
    overrides = Overrides(providers={"scripted": provider}, default_model="scripted")
    with live_server(roles, overrides) as live, live.client() as client:
        task = {
            "instructions": "Add for ever.",
            "tools": ["calculator"],
            "budget": {"max_cost_micros": cost, "max_tokens": 1_000_000},
        }
        ending = run_to_end(client, task)
    assert ending.status == "blocked"
    assert ending.run["cost_micros"] <= cost
    told = sum(entry["usage"]["cost_micros"] for entry in ending.of("llm.responded"))
    stored = rows(roles, "SELECT cost_micros FROM runs WHERE run_id = $1", ending.run_id)
    assert told == ending.run["cost_micros"] == stored[0]["cost_micros"]
    assert len(provider.requests) == len(ending.of("llm.responded"))
    assert bool(provider.requests) == (cost >= 100_000)


async def _never(_request: ModelRequest) -> None:
    await asyncio.Event().wait()


def test_the_wall_clock_ends_a_provider_that_never_answers(roles: Roles) -> None:
    provider = ScriptedProvider([], before_reply=_never)
    overrides = Overrides(providers={"scripted": provider}, default_model="scripted")
    with live_server(roles, overrides) as live, live.client() as client:
        ending = run_to_end(client, {"task": "wait", "budget": {"max_wall_seconds": 1}})
    assert (ending.status, ending.code) == ("expired", "budget:wall")
    assert ending.run["status"] in ENDED


def test_a_tenants_wall_clock_ends_what_asked_for_more(roles: Roles, tmp_path: Path) -> None:
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "acme.toml").write_text("[max_budget]\nmax_wall_seconds = 1\n")
    provider = ScriptedProvider([], before_reply=_never)
    overrides = Overrides(providers={"scripted": provider}, default_model="scripted")
    with (
        live_server(roles, overrides, MESHFLOW_CONFIG_DIR=str(tmp_path)) as live,
        live.client() as client,
    ):
        ending = run_to_end(client, {"task": "wait", "budget": {"max_wall_seconds": 3600}})
    assert (ending.status, ending.code) == ("expired", "budget:wall")
