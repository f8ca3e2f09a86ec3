"""Finds the command that another one starts: `env`, `timeout`, `xargs` and their like.

Threat: Privilege escalation via tool calls
"""

from dataclasses import dataclass

from app.tools.shell_values import UNKNOWN, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """How the arguments before the inner command are read: what is not here is refused."""

    # Letters that stand alone, letters that take what follows, and the same for long names.
    alone: str = ""
    taking: str = ""
    long_alone: tuple[str, ...] = ()
    long_taking: tuple[str, ...] = ()
    operands: int = 0


WRAPPERS = {
    "builtin": Wrapper(),
    "busybox": Wrapper(),
    "command": Wrapper(alone="p"),
    "exec": Wrapper(alone="cl", taking="a"),
    "nice": Wrapper(alone="0123456789", taking="n", long_taking=("adjustment",)),
    "nohup": Wrapper(),
    "stdbuf": Wrapper(taking="ioe", long_taking=("input", "output", "error")),
    "time": Wrapper(
        alone="pvaq",
        taking="fo",
        long_alone=("portability", "verbose", "append", "quiet"),
        long_taking=("format", "output"),
    ),
    "timeout": Wrapper(
        alone="v",
        taking="ks",
        long_alone=("foreground", "preserve-status", "verbose"),
        long_taking=("kill-after", "signal"),
        operands=1,
    ),
    "toybox": Wrapper(),
    "env": Wrapper(
        alone="i0v",
        taking="uC",
        long_alone=("ignore-environment", "null", "debug"),
        long_taking=("unset", "chdir"),
    ),
    "xargs": Wrapper(
        alone="0rtpx",
        taking="nPILdsEa",
        long_alone=("null", "no-run-if-empty", "verbose", "exit"),
        long_taking=(
            "max-args",
            "max-procs",
            "delimiter",
            "max-chars",
            "arg-file",
        ),
    ),
}


def after_options(arguments: list[Value], wrapper: Wrapper) -> tuple[int, list[str]] | None:
    """Where the operands begin, and the options before; None for any that is not known.

    A letter that takes what follows is given with it: `-Ix` and `-I x` are both `-Ix`.
    """
    at, options = 0, list[str]()
    while at < len(arguments):
        shape = arguments[at].shape
        if arguments[at].is_split or shape[:1] == UNKNOWN:
            return None
        if shape == "--":
            return at + 1, options
        if shape[:1] != "-" or shape == "-":
            return at, options
        read = _long(shape, wrapper) if shape[:2] == "--" else _short(shape, wrapper)
        if read is None:
            return None
        at += 1
        if read:
            if at >= len(arguments) or arguments[at].is_split:
                return None
            shape += arguments[at].shape
            at += 1
        options.append(shape)
    return at, options


def _long(shape: str, wrapper: Wrapper) -> bool | None:
    """Whether the next argument belongs to this option; None when it is not known."""
    name, sign, _ = shape[2:].partition("=")
    if name in wrapper.long_taking:
        return not sign
    return False if name in wrapper.long_alone and not sign else None


def _short(shape: str, wrapper: Wrapper) -> bool | None:
    for place, letter in enumerate(shape[1:], start=2):
        if letter in wrapper.taking:
            return place == len(shape)
        if letter not in wrapper.alone:
            return None
    return False


def found_by_xargs(options: list[str], inner: list[Value]) -> list[Value]:
    """The inner command with what xargs puts into it; without one it is echo."""
    inner = inner or [Value("echo")]
    signs = [option[2:] for option in options if option.startswith("-I")]
    if not signs:
        return [*inner, Value(UNKNOWN, is_split=True)]
    return [replaced(value, signs[-1], UNKNOWN) for value in inner]


def replaced(value: Value, sign: str, by: str) -> Value:
    """The argument with what is put in for a sign."""
    return Value(value.shape.replace(sign, by) if sign else UNKNOWN, value.is_split)
