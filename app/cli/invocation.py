"""What a command is given: the environment, who runs it, and how it tells that it failed."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.domain.errors import MeshFlowError
from app.settings import Settings

OK = 0
FAILED = 1
USAGE = 2
STOPPED = 143  # what a shell says of a process that SIGTERM ended

KEY_FILE_NAME = "MESHFLOW_KEY_FILE"
# Read by the client commands only; the server's settings do not know them.
_CLIENT_NAMES = frozenset({KEY_FILE_NAME})


class CommandError(MeshFlowError):
    """A command cannot do what it was asked; `exit_code` says which kind of cannot."""

    def __init__(self, sentence: str, exit_code: int = FAILED) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The surroundings of one command."""

    environ: Mapping[str, str]
    uid: int
    home: Path

    def settings(self, *, dev: bool = False) -> Settings:
        """The settings in effect. ConfigurationError on the first problem."""
        server = {name: text for name, text in self.environ.items() if name not in _CLIENT_NAMES}
        return Settings.from_environ(server, dev=dev, uid=self.uid, home=self.home)


def complain(sentence: str) -> None:
    """One line on stderr, as every program names itself there."""
    sys.stderr.write(f"meshflow: {sentence}\n")
    sys.stderr.flush()


def this_invocation(environ: Mapping[str, str]) -> Invocation:
    """The surroundings of this process."""
    return Invocation(environ=environ, uid=os.geteuid(), home=Path.home())
