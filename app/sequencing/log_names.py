"""The names of logs: how the origin of a log is made, and what a recovery makes of it.

Source: docs/ledger-format.md section 10.
"""

import re

_RECOVERED = re.compile(r"/r([1-9][0-9]*)\Z")


def log_origin(deployment: str, log: bytes) -> str:
    """The origin of a log that was never recovered."""
    return f"{deployment}/ledger/{log.hex()}"


def is_name_after(origin: str, before: str | None, log: bytes) -> bool:
    """Whether a log whose last checkpoint bore `before` may be signed under this origin.

    Its name never changes but by a recovery, so that nobody gets a fresh start by renaming it.
    """
    base, number = _parts(origin)
    if not base.endswith(f"/ledger/{log.hex()}"):
        return False
    if before is None:
        return True
    old_base, old_number = _parts(before)
    return base == old_base and number >= old_number


def _parts(origin: str) -> tuple[str, int]:
    found = _RECOVERED.search(origin)
    return (origin, 0) if found is None else (origin[: found.start()], int(found[1]))


def next_origin(origin: str) -> str:
    """The origin that the next recovery gives to the log of this one."""
    found = _RECOVERED.search(origin)
    if found is None:
        return f"{origin}/r1"
    return f"{origin[: found.start()]}/r{int(found[1]) + 1}"
