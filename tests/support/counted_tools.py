"""Tools that count their executions in a file, outside any database, and may be held back there.

`count_once` says that it changes the world, `count_again` that the same call twice is as one, and
`count_pure` that it changes nothing. Each line of `<directory>/calls` is `began|ended tool word`.
A call of a word for which `<directory>/<word>.hold` exists waits until that file is gone, and every
call takes as long as COUNTED_TOOLS_SECONDS says.
"""

from collections import Counter
from pathlib import Path

from tests.support.installed_distribution import installed

NAMES = ("count_once", "count_again", "count_pure")
PLACE = "COUNTED_TOOLS_DIR"
_MODULE = """
import asyncio
import os
from pathlib import Path

from app.domain.label import Label
from app.domain.step import Effect, Role, ToolSpec

PLACE = Path(os.environ["COUNTED_TOOLS_DIR"])
SECONDS = float(os.environ.get("COUNTED_TOOLS_SECONDS", "0"))


def note(line):
    handle = os.open(PLACE / "calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, (line + "\\n").encode())
    os.close(handle)


class Counted:
    def __init__(self, name, effect, is_idempotent=False):
        self.spec = ToolSpec(
            name=name,
            description="Counts.",
            effect=effect,
            parameters={
                "type": "object",
                "properties": {"word": {"type": "string", "maxLength": 100}},
                "required": ["word"],
                "additionalProperties": False,
            },
            roles={"word": Role.CONTENT},
            labels={"": Label()},
            asked_by=("count",),
            timeout_seconds=60.0,
            is_idempotent=is_idempotent,
        )

    async def run(self, arguments, workspace):
        word = arguments["word"]
        note(f"began {self.spec.name} {word}")
        await asyncio.sleep(SECONDS)
        while (PLACE / f"{word}.hold").exists():
            await asyncio.sleep(0.01)
        note(f"ended {self.spec.name} {word}")
        return f"counted {word}"


ONCE = Counted("count_once", Effect.NETWORK)
AGAIN = Counted("count_again", Effect.NETWORK, is_idempotent=True)
PURE = Counted("count_pure", Effect.NONE)
"""
_POINTS = {"count_once": "ONCE", "count_again": "AGAIN", "count_pure": "PURE"}


def installed_counters(scratch: Path) -> Path:
    """Put the tools where an installer would; the directory to put on the path."""
    sources = {"mf_counted_tools.py": _MODULE}
    tools = {name: f"mf_counted_tools:{what}" for name, what in _POINTS.items()}
    return installed(scratch, "mf_counted_tools", sources, tools)


def executions(directory: Path, what: str = "began") -> Counter[str]:
    """How often each word was counted: begun, or ended."""
    try:
        lines = (directory / "calls").read_text().splitlines()
    except FileNotFoundError:
        return Counter()
    return Counter(line.split()[2] for line in lines if line.split()[0] == what)
