"""`meshflow demo`: the main job end to end, on real parts, and a plain account of what held.

A task with tools, a refused tool call, a ledger that verifies, and a tampered copy that does not.
Needs no model key, no database and no network.
"""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.cli.demo_scene import DemoScene, demo_scene
from app.cli.http_client import ApiClient, plain, text_of
from app.cli.invocation import FAILED, OK, CommandError, Invocation
from app.cli.run_command import follow
from app.domain.errors import MeshFlowError
from app.domain.run import Json, JsonObject, parse_run_id

_PAGE = 200
_TASK = "Calculate 6*7 and write the result to answer.txt"
_REFUSED_TASK = "Write 'x' to notes.txt"


@dataclass(slots=True)
class Account:
    """What held and what did not, told as it happens."""

    failures: list[str] = field(default_factory=list)

    def say(self, line: str = "") -> None:
        """A line of the story."""
        print(plain(line), flush=True)

    def check(self, sentence: str, *, held: bool) -> None:
        """One claim of the story; a claim that does not hold fails the demo, and it goes on."""
        self.say(f"  [{'ok' if held else 'NOT SO'}] {sentence}")
        if not held:
            self.failures.append(sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Where in the ledger a refused call stands."""

    run_id: str
    seq: int


def demo(invocation: Invocation, _arguments: Namespace) -> int:
    """0 only if every step held; 1 with the steps that did not."""
    account = Account()
    try:
        with demo_scene(invocation.environ) as scene:
            _tell(scene, account)
    except (CommandError, MeshFlowError) as error:
        account.check(str(error), held=False)
    if account.failures:
        account.say("\nDid not hold:")
        for sentence in account.failures:
            account.say(f"  - {sentence}")
        return FAILED
    account.say(
        "\nEverything held. What was stored was checked against itself and its signatures; that a\n"
        "model told the truth, no ledger can show."
    )
    return OK


def _tell(scene: DemoScene, account: Account) -> None:
    account.say("MeshFlow demo: a real server, a real database, real HTTP; the model is the")
    account.say("offline stand-in, which does what it is asked and is not a language model.")
    with scene.server() as api:
        worked = _a_task_with_tools(scene, api, account)
        refusal = _a_refused_call(scene, api, account)
        account.say("\n3. The ledgers of both runs are verified.")
        for run_id in (worked, refusal.run_id):
            found = api.get(f"/v1/runs/{run_id}/verification")
            account.check(
                f"{run_id}: {text_of(found, 'verdict')}, {found.get('entries')} entries",
                held=text_of(found, "verdict") == "valid",
            )
    _a_tampered_copy(scene, refusal, account)


def _a_task_with_tools(scene: DemoScene, api: ApiClient, account: Account) -> str:
    account.say(f'\n1. A task: "{_TASK}"')
    run = _run(api, {"task": _TASK}, account)
    account.check(
        f"the run {text_of(run, 'status')}: {text_of(run, 'output')}",
        held=text_of(run, "status") == "succeeded" and "42" in text_of(run, "output"),
    )
    called = [
        text_of(entry, "call", "name")
        for entry in _entries(api, text_of(run, "id"))
        if entry.get("kind") == "tool.decided" and _verdict(entry) == "allow"
    ]
    account.check(
        f"the gate allowed {' and '.join(called) or 'nothing'}",
        held=called == ["calculator", "write_file"],
    )
    files = scene.files_named("answer.txt")
    account.check(
        "answer.txt is in the run's workspace and says 42",
        held=len(files) == 1 and files[0].read_text(encoding="utf-8").strip() == "42",
    )
    return text_of(run, "id")


def _a_refused_call(scene: DemoScene, api: ApiClient, account: Account) -> Refusal:
    account.say(f'\n2. A task that may only calculate: "{_REFUSED_TASK}"')
    body: JsonObject = {
        "instructions": _REFUSED_TASK,
        "capabilities": {"tools": ["calculator"]},
    }
    run = _run(api, body, account)
    run_id = text_of(run, "id")
    refused = [
        entry
        for entry in _entries(api, run_id)
        if entry.get("kind") == "tool.decided" and _verdict(entry) == "deny"
    ]
    tools = {text_of(entry, "call", "name") for entry in refused}
    account.check("the gate refused write_file, and wrote that down", held=tools == {"write_file"})
    account.check("notes.txt does not exist anywhere", held=not scene.files_named("notes.txt"))
    seq = refused[0].get("seq") if refused else None
    if not isinstance(seq, int):
        raise CommandError("there is no recorded refusal to tamper with")
    return Refusal(run_id=run_id, seq=seq)


def _a_tampered_copy(scene: DemoScene, refusal: Refusal, account: Account) -> None:
    account.say(
        f"\n4. The database is copied, and its superuser turns one bit of entry {refusal.seq}."
    )
    run_id = parse_run_id(refusal.run_id)
    if run_id is None:
        raise CommandError("the server gave a run id that is none")
    path = f"/v1/runs/{refusal.run_id}/verification"
    with (
        scene.tampered_copy(run_id, refusal.seq) as url,
        scene.server(database_url=url) as api,
    ):
        found = api.get(path)
    broken = found.get("break")
    place: Json = broken.get("seq") if isinstance(broken, dict) else None
    reason = text_of(found, "break", "reason")
    account.check(
        f"the copy is {text_of(found, 'verdict')}, at seq {place}: {reason}",
        held=text_of(found, "verdict") == "broken" and place == refusal.seq,
    )
    with scene.server() as api:
        found = api.get(path)
    account.check(
        f"the original is still {text_of(found, 'verdict')}",
        held=text_of(found, "verdict") == "valid",
    )


def _run(api: ApiClient, body: JsonObject, account: Account) -> JsonObject:
    run_id = text_of(api.post("/v1/runs", body), "id")
    entries: list[str] = []
    run = follow(api, run_id, tell=entries.append)
    for line in entries:
        account.say(f"     {line.rstrip()}")
    return run


def _entries(api: ApiClient, run_id: str) -> Iterator[JsonObject]:
    after = -1
    while True:
        page = api.get(f"/v1/runs/{run_id}/entries?after_seq={after}&limit={_PAGE}")
        data = page.get("data")
        found = (
            [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
        )
        yield from found
        if not page.get("has_more") or not found:
            return
        after += len(found)


def _verdict(entry: JsonObject) -> str:
    return text_of(entry, "decision", "verdict")
