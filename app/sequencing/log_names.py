"""The names of logs: how the origin of a log is made, and what a recovery makes of it.

Source: docs/ledger-format.md section 10.
"""

import re

_RECOVERED = re.compile(r"/r([1-9][0-9]*)\Z")


def log_origin(deployment: str, log: bytes) -> str:
    """The origin of a log that was never recovered."""
    return f"{deployment}/ledger/{log.hex()}"


def next_origin(origin: str) -> str:
    """The origin that the next recovery gives to the log of this one."""
    found = _RECOVERED.search(origin)
    if found is None:
        return f"{origin}/r1"
    return f"{origin[: found.start()]}/r{int(found[1]) + 1}"
