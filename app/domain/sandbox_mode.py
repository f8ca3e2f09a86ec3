"""How tools are confined, as the operator says it and as every record is stamped with."""

from enum import StrEnum


class SandboxMode(StrEnum):
    """There is no half-mode: all walls, or openly none."""

    STRICT = "strict"
    OFF_UNSAFE = "off-unsafe"


def exact_mode(word: str) -> SandboxMode | None:
    """The mode of exactly this word; nobody switches the walls off by a slip."""
    return next((mode for mode in SandboxMode if mode.value == word), None)
