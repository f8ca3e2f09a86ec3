"""`meshflow run`: sends a task, follows its ledger as it grows, prints the output."""

import sys
import time
from argparse import Namespace
from collections.abc import Callable

from app.cli.http_client import ApiClient, api_client, plain, text_of
from app.cli.invocation import FAILED, OK, Invocation
from app.domain.run import TERMINAL, JsonObject, RunStatus

_WIDTH = 100
_PAUSE_SECONDS = 1.0


def run_task(invocation: Invocation, arguments: Namespace) -> int:
    """0 when the run succeeded (or was admitted, without --wait), 1 when not."""
    with api_client(invocation, arguments) as api:
        run = api.post("/v1/runs", {"task": arguments.task})
        run_id = text_of(run, "id")
        if not arguments.wait:
            print(run_id)
            return OK
        sys.stderr.write(f"{plain(run_id)}\n")
        run = follow(api, run_id, tell=_to_stderr)
    output = text_of(run, "output")
    if output:
        print(plain(output))
    if text_of(run, "status") == RunStatus.SUCCEEDED:
        return OK
    code = text_of(run, "error", "code")
    sys.stderr.write(plain(f"the run ended as {text_of(run, 'status')}: {code or 'no code'}\n"))
    return FAILED


def follow(api: ApiClient, run_id: str, *, tell: Callable[[str], None]) -> JsonObject:
    """The run once it is over. Each new ledger entry is told as one line on the way.

    A stream that the server ends early (it drains, or its time is up) is taken up after the last
    entry that was seen.
    """
    seen = -1
    while True:
        for event in api.events(f"/v1/runs/{run_id}/events", seen):
            if event.seq > seen:
                seen = event.seq
                tell(progress_line(event.kind, event.data))
        run = api.get(f"/v1/runs/{run_id}")
        if text_of(run, "status") in {status.value for status in TERMINAL}:
            return run
        time.sleep(_PAUSE_SECONDS)


def progress_line(kind: str, entry: JsonObject) -> str:
    """A ledger entry in one line: its kind, and the little that people want to know of it."""
    match kind:
        case "run.submitted" | "run.finished":
            told = text_of(entry, "outcome")
        case "llm.requested" | "llm.responded":
            told = " ".join((text_of(entry, "model"), text_of(entry, "outcome")))
        case "tool.decided":
            told = f"{text_of(entry, 'call', 'name')}: {text_of(entry, 'outcome')}"
        case "tool.finished":
            told = text_of(entry, "result", "content") or text_of(entry, "outcome")
        case _:
            told = ""
    line = " ".join(plain(f"{kind:<16} {told}").split("\n"))
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"  {line.rstrip()}\n")
    sys.stderr.flush()
