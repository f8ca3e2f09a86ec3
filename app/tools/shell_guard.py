"""Reads a shell command before it runs and refuses what is plainly not for it: the first layer.

It is no boundary and is not meant as one. It refuses early, cheaply and with a reason, so that
the attempt is told and recorded.

Threat: Privilege escalation via tool calls
Threat: Exfiltration via web/shell tools
"""

import shlex
import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.domain.errors import ConfigurationError

FILE_NAME = "shell_refusals.toml"
_MAX_FILE_BYTES = 256 * 1024


class _RefusalFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    names: list[str] = []
    shells: list[str] = []
    flags: list[str] = []
    strict: list[str] = []
    variables: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellRefusals:
    """What is refused by name. More can be added; there is no way to take anything away."""

    names: frozenset[str]
    shells: frozenset[str]
    flags: frozenset[str]
    strict: frozenset[str]
    variables: frozenset[str]

    def plus(self, other: "ShellRefusals") -> "ShellRefusals":
        """All that either refuses."""
        return ShellRefusals(
            **{one.name: getattr(self, one.name) | getattr(other, one.name) for one in fields(self)}
        )


def load_shell_refusals(config_dir: Path | None) -> ShellRefusals:
    """The shipped list and, when the operator has one, theirs. ConfigurationError if malformed."""
    shipped = resources.files("app.tools").joinpath(FILE_NAME).read_bytes()
    refusals = _parsed(shipped)
    added = None if config_dir is None else config_dir / FILE_NAME
    if added is None or not added.exists():
        return refusals
    try:
        data = added.read_bytes()
    except OSError:
        raise ConfigurationError(f"{FILE_NAME} cannot be read") from None
    return refusals.plus(_parsed(data))


def _parsed(data: bytes) -> ShellRefusals:
    names = [one.name for one in fields(ShellRefusals)]
    try:
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigurationError(f"{FILE_NAME} is too large")
        read = _RefusalFile.model_validate(tomllib.loads(data.decode()))
    except (ValidationError, ValueError):
        raise ConfigurationError(
            f"{FILE_NAME} may hold only lists of text: {', '.join(names)}"
        ) from None
    return ShellRefusals(**{name: frozenset(getattr(read, name)) for name in names})


def refused(command: str, refusals: ShellRefusals) -> str | None:
    """Why this command is not run, in a fixed sentence; None when nothing is known against it."""
    try:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
        lexer.commenters = ""
        words = [word.rpartition("/")[2] for word in lexer]
    except ValueError:
        return "the command cannot be read"
    if not (refusals.names | refusals.shells).isdisjoint(words):
        return "a command in it is not allowed"
    flags = {letter for word in words if word.startswith("-") for letter in word.casefold()}
    is_forced = "--force" in words or "f" in flags
    is_recursive = "--recursive" in words or "r" in flags
    if "rm" in words and is_forced and is_recursive:
        return "rm with recursion and force is not allowed"
    return None
