"""The lists of the first layer of the tool `shell`, and every sentence it refuses with.

Threat: Privilege escalation via tool calls
"""

import tomllib
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.domain.errors import ConfigurationError
from app.tools.shell_flags import FlagRule, flag_rule

FILE_NAME = "shell_refusals.toml"
_MAX_FILE_BYTES = 256 * 1024

UNREADABLE = "the command cannot be read for certain: it is not well formed, too long, or unusual"
UNKNOWN_NAME = "the name of a command in it is only known when it runs"
UNKNOWN_ARGUMENT = "an argument that decides what a command does is only known when it runs"
OUTSIDE_PLACE = "a program is called by a path; only system programs may be, by their names"
SHELL_INPUT = "a shell may only be given -c and a text that can be read"
UNREAD_TEXT = "text that cannot be read beforehand would be run as a command"
NETWORK = "a redirection may open a network connection"
VARIABLE = "a variable is assigned that decides what is run or how it is read"
OPTION = "an option is set that changes how the shell reads commands"
EVALUATED = "quoted text in it could be run while a number or a name is evaluated"
STARTS_PROGRAM = "a program for awk or sed starts other programs, or cannot be read"
DELETES = "find -delete needs a test that chooses what is deleted"

SENTENCES = frozenset(
    {
        UNREADABLE,
        UNKNOWN_NAME,
        UNKNOWN_ARGUMENT,
        OUTSIDE_PLACE,
        SHELL_INPUT,
        UNREAD_TEXT,
        NETWORK,
        VARIABLE,
        OPTION,
        EVALUATED,
        STARTS_PROGRAM,
        DELETES,
    }
)


class _RefusalFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    names: list[str] = []
    shells: list[str] = []
    flags: list[str] = []
    strict: list[str] = []
    variables: list[str] = []


@dataclass(frozen=True, kw_only=True)
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

    @cached_property
    def flag_rules(self) -> dict[str, list[FlagRule]]:
        """The rules of the list `flags`, by command."""
        rules: dict[str, list[FlagRule]] = {}
        for text in sorted(self.flags):
            rule = flag_rule(text)
            rules.setdefault(rule.command, []).append(rule)
        return rules

    def refuses_variable(self, name: str) -> bool:
        """Whether it may not be assigned."""
        stars = (one[:-1] for one in self.variables if one.endswith("*"))
        return name in self.variables or any(name.startswith(star) for star in stars)

    def sentences(self) -> frozenset[str]:
        """Everything that can be answered: none of it comes from the command."""
        names = {not_allowed(name) for name in self.names}
        return SENTENCES | names | {flags_not_allowed(command) for command in self.flag_rules}


def not_allowed(name: str) -> str:
    """The sentence for a name of the list."""
    return f"the command {name} is not allowed"


def flags_not_allowed(command: str) -> str:
    """The sentence for a command of the list with flags of the list."""
    return f"the command {command} is not allowed with these flags"


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
        for text in read.flags:
            flag_rule(text)
    except (ValidationError, ValueError):
        raise ConfigurationError(
            f"{FILE_NAME} may hold only lists of text: {', '.join(names)}; "
            "flags as `command -x/--long -y`"
        ) from None
    return ShellRefusals(**{name: frozenset(getattr(read, name)) for name in names})
