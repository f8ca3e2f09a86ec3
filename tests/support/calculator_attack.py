"""Runs the corpus of hostile expressions against the calculator, and against plain `eval`.

The control evaluates each expression as a careless tool would, in a process of its own under hard
limits, and sees what comes of it: nothing it says is believed but how it ended and what it left.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CORPUS = REPOSITORY / "tests" / "security" / "corpus" / "calculator.jsonl"
# For all expressions together, or for all of a control: only a hang can miss it.
DEADLINE_SECONDS = 600.0  # for a busy machine; a hang has no end
# In the order in which the calculator asks.
_LAYERS = {
    "text": r"the expression is (longer|not arithmetic)|a number is too long|"
    r"'.*' is not known|.* too many (open brackets|signs)",
    "tree": r"the expression is not well formed|.* more than \d+ parts|.* nested too deeply|"
    r"only numbers, operators|this function is not known|.* does not take",
    "prediction": r"the (result|expression) would|round takes at most",
    "arithmetic": r"only real numbers|this operation needs|division by zero|the operation is not",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What the calculator made of a row: its value or the text of its refusal, and the layer."""

    row: dict[str, Any]
    value: str | None
    told: str
    layer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Everything the calculator was asked, and how much more memory it took for it."""

    evaluated: list[Evaluated]
    grown_bytes: int


def corpus() -> list[dict[str, Any]]:
    """Every row. A payload is a text, or pieces: a text, or a text and how often it stands."""
    return [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


def payload(row: dict[str, Any], canary: Path) -> str:
    """The expression itself; what it may write is the canary."""
    pieces = [row["payload"]] if isinstance(row["payload"], str) else row["payload"]
    text = "".join(one if isinstance(one, str) else one[0] * one[1] for one in pieces)
    return text.replace("{CANARY}", str(canary))


_EVALUATE = """
import json, resource, sys, warnings
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
warnings.simplefilter("error")
from app.domain.errors import ToolError
from app.tools.calculator import evaluate
payloads = json.load(sys.stdin)
evaluate("2**10 + factorial(9)")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for payload in payloads:
    try:
        outcome = "value " + evaluate(payload)
    except ToolError as told:
        outcome = "refused " + str(told)
    except BaseException as escaped:
        outcome = "escaped " + type(escaped).__name__
    print(json.dumps(outcome), flush=True)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def evaluated(rows: Sequence[dict[str, Any]], canary: Path) -> Arm:
    """Every row by the calculator, in one process. Raises when it hangs, dies or lets one out."""
    lines = _run(_EVALUATE, [payload(row, canary) for row in rows]).splitlines()
    found = []
    for row, line in zip(rows, lines[:-1], strict=True):
        outcome, _, told = str(json.loads(line)).partition(" ")
        assert outcome in ("value", "refused"), (row["id"], outcome, told)
        has_value = outcome == "value"
        found.append(
            Evaluated(
                row=row,
                value=told if has_value else None,
                told=told,
                layer="none" if has_value else _layer(told),
            )
        )
    return Arm(evaluated=found, grown_bytes=int(lines[-1]))


def _layer(told: str) -> str:
    """Which of the calculator's checks this refusal is of."""
    return next(name for name, form in _LAYERS.items() if re.match(form, told, re.DOTALL))


# SIGPROF is not caught: it ends an evaluation in the middle of a C function, too.
_CONTROL = """
import json, math, os, resource, shutil, signal, sys
told = json.load(sys.stdin)
names = {name: getattr(math, name) for name in dir(math) if name[0] != "_" and name != "pow"}
nothing = os.open(os.devnull, os.O_RDWR)
answers = os.dup(1)
for standard in (0, 1, 2):
    os.dup2(nothing, standard)
for payload in told["payloads"]:
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.setitimer(signal.ITIMER_PROF, told["seconds"])
        try:
            eval(payload, dict(names))
        except MemoryError:
            os._exit(99)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    canary = told["canary"]
    wrote = os.path.lexists(canary)
    if wrote:
        shutil.rmtree(canary) if os.path.isdir(canary) else os.unlink(canary)
    harm = "writes" if wrote else "exhausts" if status == 99 or status < 0 else ""
    os.write(answers, (json.dumps(harm) + "\\n").encode())
"""


def harmed(rows: Sequence[dict[str, Any]], canary: Path, seconds: float) -> dict[str, str]:
    """What `eval` does with each row, by id: it `writes`, `exhausts`, or nothing of either.

    `exhausts`: it took more processor time than this, more than 512 MB, or it crashed.
    """
    told = {
        "payloads": [payload(row, canary) for row in rows],
        "canary": str(canary),
        "seconds": seconds,
    }
    lines = _run(_CONTROL, told).splitlines()
    return {row["id"]: str(json.loads(line)) for row, line in zip(rows, lines, strict=True)}


def _run(program: str, given: object) -> str:
    return subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
        cwd=REPOSITORY,
    ).stdout
