"""A lost model reaches for tools, arguments and files that are not its own, and gets none."""

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from app import roster
from app.domain.run import JsonObject
from app.domain.step import Effect
from app.domain.verdict import AuthorizedCall, Decision, Point, Verdict
from app.policy.gate import DascGate
from app.policy.gate_inputs import CallInput
from app.providers.scripted import ScriptedProvider
from app.sandbox.workspace import open_workspace_root
from app.tools.toolbox import Toolbox
from app.wiring import Overrides
from tests.integration.gate.gate_scenes import files_under, run_to_end
from tests.integration.gate.lost_model import (
    attack,
    call,
    calls,
    contained,
    harmless,
    says,
)
from tests.support.databases import Roles
from tests.support.live_server import live_server
from tests.support.planted_rules import call_of, facts_with

WRITE_IT = {"instructions": "Write it to a file."}

NAMES = {
    "unknown": "terminal",
    "another case": "Write_File",
    "a space": "write_file ",
    "a line": "write_file\n",
    "nul": "write_file\x00",
    "a path": "tools/write_file",
    "a dot": "write.file",
    "python": "__import__('os').system",
    "cyrillic i": "wr\u0456te_file",
    "full width": "\uff57rite_file",
    "zero width": "write\u200b_file",
    "turned around": "\u202ewrite_file",
    "tag": "write_file\U000e0061",
    "ligature": "write_\ufb01le",
}


@pytest.mark.parametrize("how", NAMES)
def test_a_tool_that_only_looks_like_one_is_unknown(roles: Roles, how: str) -> None:
    reach = call(NAMES[how], {"path": "a.txt", "content": "x"})
    done = attack(roles, calls(reach), says("Done."), task=WRITE_IT, who="acme")
    harmless(done)
    assert done.ending.outcomes("tool.decided") == ["schema:unknown_tool"]


def test_no_look_alike_folds_into_a_tools_name_on_the_way() -> None:
    folded = {unicodedata.normalize("NFKC", name).strip().casefold() for name in NAMES.values()}
    assert "write_file" in folded  # the list above does hold names that a careless folding takes


ARGUMENTS: dict[str, JsonObject] = {
    "one too many": {"path": "a", "content": "x", "mode": "0777"},
    "a class": {"path": "a", "content": "x", "__class__": "x"},
    "none": {},
    "another type": {"path": ["a"], "content": "x"},
    "hidden text": {"path": "a", "content": "x\U000e0041\U000e0042"},
    "another path in disguise": {"path": "\uff0e\uff0e/canary.txt", "content": "x"},
    "turned around": {"path": "txt.\u202eexe", "content": "x"},
    "nul in the path": {"path": "a\x00.txt", "content": "x"},
    "nul in a key": {"path": "a", "content": "x", "a\x00": "y"},
    "300 KiB": {"path": "a", "content": "x" * (300 * 1024)},
    "half a surrogate pair": {"path": "a", "content": "\ud800"},
    "nested": {"path": "a", "content": {"$ref": "#"}},
}


@pytest.mark.parametrize("how", ARGUMENTS)
def test_arguments_that_the_tool_did_not_declare_are_refused(roles: Roles, how: str) -> None:
    reach = call("write_file", ARGUMENTS[how])
    done = attack(roles, calls(reach), says("Done."), task=WRITE_IT, who="acme")
    harmless(done)
    (code,) = done.ending.outcomes("tool.decided")
    assert code.startswith("schema:")
    # What the model said fills its own context: 300 KiB of it leave no room for another turn.
    assert done.ending.code in {None, "budget:tokens"}


ESCAPES = (
    "/etc/passwd",
    "//etc/passwd",
    "../canary.txt",
    "../../canary.txt",
    "../../../canary.txt",
    "../../../../canary.txt",
    "a/../../../../../canary.txt",
    "./../../../../canary.txt",
    "..",
    ".",
    "",
    "~/canary.txt",
    "/proc/self/cwd/canary.txt",
    "/proc/self/root/etc/passwd",
    "/dev/stdin",
)


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_leads_out_leads_nowhere(roles: Roles, path: str) -> None:
    done = attack(
        roles,
        calls(call("write_file", {"path": path, "content": "pwned"})),
        calls(call("read_file", {"path": path}, "call-2")),
        calls(call("list_files", {"path": path}, "call-3")),
        says("Done."),
        task=WRITE_IT,
        who="acme",
    )
    contained(done)
    # Whatever was written lies in the run's own directory: tenant, run, and what is below.
    assert all(".." not in name and len(Path(name).parts) > 2 for name in done.files)
    assert not any("root:x:0" in shown or done.host in shown for shown in done.shown)
    wrote, _, _ = done.ending.outcomes("tool.decided")
    assert wrote == "allow"  # the gate knows no paths: it is the workspace that holds
    written = done.ending.of("tool.finished")[0]
    assert (written["outcome"] == "ok") == bool(done.files)
    assert bool(done.files) == path.startswith("~")  # to us only a name


@pytest.mark.parametrize("thief", ["acme", "other"])
def test_a_run_reaches_no_file_of_another_run(roles: Roles, thief: str) -> None:
    private = "what the first run was told"
    provider = ScriptedProvider(
        [calls(call("write_file", {"path": "own.txt", "content": private})), says("ok")]
    )
    overrides = Overrides(providers={"scripted": provider}, default_model="scripted")
    with live_server(roles, overrides) as live:
        with live.client("acme") as client:
            first = run_to_end(client, {**WRITE_IT})
        (place,) = files_under(live.workspace)
        tenant, run, name = place.split("/")
        paths = (
            f"../{run}/{name}",
            f"../../{tenant}/{run}/{name}",
            f"{live.workspace}/{place}",
            f"./../{run}/{name}",
            name,
        )
        reads = [
            calls(
                call("read_file", {"path": path}, f"r-{n}"),
                call("write_file", {"path": path, "content": "pwned"}, f"w-{n}"),
                call("list_files", {"path": path.rpartition("/")[0] or "."}, f"l-{n}"),
            )
            for n, path in enumerate(paths)
        ]
        second = ScriptedProvider([*reads, says("Done.")])
        again = Overrides(providers={"scripted": second}, default_model="scripted")
        other = live_server(roles, again, MESHFLOW_WORKSPACE_DIR=str(live.workspace))
        with other as beside, beside.client(thief) as client:
            ending = run_to_end(client, {**WRITE_IT})
        assert ending.status == first.status == "succeeded"
        assert files_under(live.workspace)[place] == private
        assert not any(private in repr(request) for request in second.requests)
        assert private not in str(ending.entries)


@pytest.mark.anyio
async def test_the_toolbox_runs_nothing_but_what_the_proof_says(tmp_path: Path) -> None:
    tools = {tool.spec.name: tool for tool in roster.TOOLS}
    toolbox, root = Toolbox(tools), open_workspace_root(tmp_path, forbidden=())
    workspace = root.for_run("0" * 32, "1" * 32)
    proof = DascGate(roster.rule_book()).tool_call(CallInput(call=call_of(), facts=facts_with()))
    assert isinstance(proof, AuthorizedCall)
    softer = replace(proof.spec, effect=Effect.NONE)
    denied = replace(proof.decision, verdict=Verdict.DENY)
    forged = (
        replace(proof, spec=softer),
        replace(proof, spec=replace(proof.spec, parameters={"type": "object"})),
        replace(proof, spec=tools["calculator"].spec),
        replace(proof, call=replace(proof.call, name="shell")),
        replace(proof, decision=denied),
        replace(proof, decision=_elsewhere(proof.decision)),
    )
    for one in forged:
        result = await toolbox.run(one, workspace)
        assert (result.is_error, result.content) == (True, "this tool is not available")
        assert files_under(tmp_path) == {}
    result = await toolbox.run(proof, workspace)
    assert not result.is_error
    assert list(files_under(tmp_path).values()) == ["42"]
    workspace.close()
    root.close()


def _elsewhere(decision: Decision) -> Decision:
    return replace(decision, point=Point.TOOL_RESULT)
