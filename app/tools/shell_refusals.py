"""The lists of the first layer of the tool `shell`, and every sentence it refuses with.

Threat: Privilege escalation via tool calls
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from app.tools.refusal_lists import load_lists
from app.tools.shell_flags import FlagRule, flag_rule

FILE_NAME = "shell_refusals.toml"

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


def _flag_rule_text(text: str) -> str:
    flag_rule(text)
    return text


class _RefusalFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    names: list[str] = []
    shells: list[str] = []
    flags: list[Annotated[str, AfterValidator(_flag_rule_text)]] = []
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
    form = f"{', '.join(_RefusalFile.model_fields)}; flags as `command -x/--long -y`"
    return ShellRefusals(**load_lists(FILE_NAME, config_dir, _RefusalFile, form))
