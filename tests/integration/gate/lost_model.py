"""A model that does exactly what an attacker says, and what its run left on the machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.run import JsonObject, Usage
from app.domain.step import ModelReply, ModelRequest, StopReason, ToolCall
from app.providers.scripted import Scripted, ScriptedProvider
from app.wiring import Overrides
from tests.integration.gate.gate_scenes import Ending, files_under, run_to_end
from tests.support.databases import Roles
from tests.support.live_server import live_server

SAID = Usage(input_tokens=10, output_tokens=5, cost_micros=105)
CANARY = "the operator's own file"


def call(name: str, arguments: JsonObject, call_id: str = "call-1") -> ToolCall:
    """One call, as the attacker would have it."""
    return ToolCall(call_id=call_id, name=name, arguments=arguments)


def calls(*proposed: ToolCall, text: str = "") -> ModelReply:
    """A turn of calls."""
    return ModelReply(text=text, calls=proposed, stop_reason=StopReason.TOOL_USE, usage=SAID)


def says(text: str) -> ModelReply:
    """A last turn."""
    return ModelReply(text=text, calls=(), stop_reason=StopReason.END, usage=SAID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """What an attack came to."""

    ending: Ending
    files: Mapping[str, str]  # in workspaces
    shown: tuple[str, ...]  # every request that the model was sent
    canary: str
    host: str  # a path of the machine that nobody outside may see
    strays: frozenset[str]  # files that were not there before, outside of workspaces


def attack(roles: Roles, *replies: Scripted, task: Mapping[str, object], who: str) -> Attack:
    """Run a task on a lost model. The ledger of the run must be whole whatever it did."""
    provider = ScriptedProvider(replies)
    overrides = Overrides(providers={"scripted": provider}, default_model="scripted")
    with live_server(roles, overrides) as live, live.client(who) as client:
        # Where path escapes aim at: beside the runs, beside the tenants, and above all of it.
        canary = live.directory / "canary.txt"
        canary.write_text(CANARY)
        before = set(files_under(live.directory))
        ending = run_to_end(client, task)
        after = files_under(live.directory)
        new = {
            name for name in set(after) - before if not name.startswith(("data/workspace/", "keys"))
        }
        return Attack(
            ending=ending,
            files=files_under(live.workspace),
            shown=tuple(_shown(request) for request in provider.requests),
            canary=canary.read_text(),
            host=str(live.directory),
            strays=frozenset(new),
        )


def _shown(request: ModelRequest) -> str:
    return repr((request.system, request.messages))


def harmless(done: Attack) -> None:
    """Nothing was written anywhere."""
    assert done.files == {}
    contained(done)


def contained(done: Attack) -> None:
    """Nothing was written outside of workspaces, nor read from there."""
    assert done.strays == frozenset()
    assert done.canary == CANARY
    assert not any(CANARY in shown for shown in done.shown)
