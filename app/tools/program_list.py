"""The operator's list of programs for the engine `exec`, and what may be said to each of them.

Words are taken from the command by quotes and spaces alone: nothing is expanded, and what a shell
would act on is refused. The rules for arguments are the first layer; what a program can do is
decided by the kernel, which executes nothing that is not listed.

Threat: Exfiltration via web/shell tools
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.domain.errors import ConfigurationError, ToolError

FILE_NAME = "exec.toml"
_REFUSALS = "program_refusals.toml"
_MAX_FILE_BYTES = 256 * 1024
_MAX_WORDS = 256
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
# One piece of a word, or the space between words; anything else is a shell's or not closed.
_PIECE = re.compile(
    r"""(?P<space>[ \t]+)|'(?P<single>[^']*)'|"(?P<double>(?:[^"\\$`]|\\.)*)"|\\(?P<escaped>.)"""
    r"""|(?P<plain>[^\s'"\\|&;<>()$`*?\[\]{}~#!]+)""",
    re.DOTALL,
)
_IN_DOUBLE = re.compile(r'\\(["\\$`])')
_NO_SHELL = "refused before it ran: one program and its words only, there is no shell here"
_SPAWNS = "refused before it ran: an argument makes this program run another"
_LETTER_FLAG = 2  # characters of a flag that is one letter
_OLD_BUNDLES = frozenset({"tar"})  # their first word may be letters of flags without a dash


class _Refusals(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    never: list[str]
    arguments: dict[str, list[str]]
    first: dict[str, list[str]]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    path: str = Field(min_length=2, max_length=4096)
    refuse: list[str] = []


class _ListFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    programs: dict[str, _Entry] = Field(min_length=1, max_length=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedProgram:
    """One program: where it lies, what is put before its words, what they may not be."""

    path: str
    first: tuple[str, ...]
    refused: tuple[str, ...]
    has_old_bundle: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramList:
    """The programs by the name they are called by."""

    programs: Mapping[str, ListedProgram]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, in order."""
        return tuple(sorted(self.programs))

    @property
    def paths(self) -> tuple[str, ...]:
        """What the kernel may execute."""
        return tuple(sorted({program.path for program in self.programs.values()}))

    def argv(self, command: str) -> tuple[str, ...]:
        """The path and the words of a command. ToolError, with a fixed sentence, when refused."""
        name, *words = _words(command)
        program = self.programs.get(name)
        if program is None:
            raise ToolError(f"this program is not available; there are: {', '.join(self.names)}")
        if len(words) > _MAX_WORDS or any("\0" in word for word in words):
            raise ToolError("refused before it ran: too many words, or a NUL among them")
        told = [f"-{words[0]}", *words] if program.has_old_bundle and words else words
        if any(_is_refused(word, program.refused) for word in told):
            raise ToolError(_SPAWNS)
        return (program.path, *program.first, *words)


def load_program_list(config_dir: Path | None) -> ProgramList | None:
    """The operator's list, or None when there is none. ConfigurationError when it is not right."""
    place = None if config_dir is None else config_dir / FILE_NAME
    if place is None or not place.exists():
        return None
    try:
        data = place.read_bytes()
    except OSError:
        raise ConfigurationError(f"{FILE_NAME} cannot be read") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{FILE_NAME} is too large")
    try:
        listed = _ListFile.model_validate(tomllib.loads(data.decode()))
    except (ValidationError, ValueError):
        raise ConfigurationError(
            f"{FILE_NAME} must hold tables [programs.NAME], each with a path and, if wanted, refuse"
        ) from None
    shipped = resources.files("app.tools").joinpath(_REFUSALS).read_bytes()
    refusals = _Refusals.model_validate(tomllib.loads(shipped.decode()))
    return ProgramList(
        programs={name: _listed(name, entry, refusals) for name, entry in listed.programs.items()}
    )


def _listed(name: str, entry: _Entry, refusals: _Refusals) -> ListedProgram:
    path = Path(entry.path)
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{FILE_NAME}: a program's name is a plain word")
    if not path.is_absolute() or ".." in path.parts or not path.is_file():
        raise ConfigurationError(f"{FILE_NAME}: the path of '{name}' is no absolute path of a file")
    called = (name, path.name, path.resolve().name)
    known = sorted({form for one in called for form in (one.lower(), _plain(one))})
    if not set(refusals.never).isdisjoint(known):
        raise ConfigurationError(f"{FILE_NAME}: '{name}' runs other programs and is never listed")
    refused = [argument for one in known for argument in refusals.arguments.get(one, [])]
    return ListedProgram(
        path=entry.path,
        first=tuple(word for one in known for word in refusals.first.get(one, [])),
        refused=(*refused, *entry.refuse),
        has_old_bundle=not _OLD_BUNDLES.isdisjoint(known),
    )


def _plain(name: str) -> str:
    """`python3.11` and `g++-12` go by the name without its version."""
    return name.lower().rstrip("0123456789.-") or name


def _is_refused(word: str, refused: Sequence[str]) -> bool:
    if word == "--":
        return False
    flag = word.partition("=")[0]
    return any(_names(word, flag, one) for one in refused)


def _names(word: str, flag: str, refused: str) -> bool:
    if refused.startswith("--"):
        return flag.startswith("--") and refused.startswith(flag)
    if refused.startswith("-") and len(refused) == _LETTER_FLAG:
        return word.startswith("-") and not word.startswith("--") and refused[1] in word
    return word == refused


def _words(command: str) -> list[str]:
    """The words, by the rules of POSIX quoting; nothing else of a shell is there. ToolError."""
    words = list(_split(command))
    if not words:
        raise ToolError("refused before it ran: there is no command")
    return words


def _split(command: str) -> Iterator[str]:
    word: list[str] = []
    reached = 0
    while reached < len(command):
        piece = _PIECE.match(command, reached)
        if piece is None:
            raise ToolError(_NO_SHELL)
        reached = piece.end()
        if piece["space"] is None:
            doubled = piece["double"]
            plain = piece["single"] or piece["escaped"] or piece["plain"] or ""
            word.append(plain if doubled is None else _IN_DOUBLE.sub(r"\1", doubled))
        elif word:
            yield "".join(word)
            word = []
    if word:
        yield "".join(word)
