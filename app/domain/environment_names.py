"""Which names of the environment are ours, and which only look so.

A misspelt setting must not be passed over in silence; one that Kubernetes made must be.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import PurePath

from app.domain.errors import ConfigurationError

# What a Kubernetes Service whose name begins with "meshflow" puts into every pod beside it.
_LINK = re.compile(
    r"MESHFLOW_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_TCP(?:_(?:PROTO|PORT|ADDR))?)"
)
_LINK_PORT = re.compile(r"MESHFLOW_(?:[A-Z0-9_]+_)?PORT")


def known_names(
    environ: Mapping[str, str], *, prefix: str, known: Collection[str], near: Collection[str]
) -> tuple[str, ...]:
    """Names that Kubernetes made, to be ignored; ConfigurationError on any other unknown name.

    `near` are names without the prefix that somebody may have meant.
    """
    ours = sorted(name for name in environ if name.startswith(prefix))
    ignored = tuple(name for name in ours if _is_service_link(name, environ[name]))
    # Compared without the prefix, or everything would resemble everything.
    meant = {name.removeprefix(prefix): name for name in sorted((*known, *near))}
    for name in ours:
        if name in known or name in ignored:
            continue
        found = difflib.get_close_matches(name.removeprefix(prefix), meant, n=1, cutoff=0.6)
        hint = f"; did you mean {meant[found[0]]}?" if found else ""
        raise ConfigurationError(f"{name} is not a setting{hint}")
    return ignored


def _is_service_link(name: str, value: str) -> bool:
    if _LINK.fullmatch(name):
        return True
    return _LINK_PORT.fullmatch(name) is not None and value.startswith("tcp://")


def default_data_dir(environ: Mapping[str, str], uid: int, home: PurePath) -> PurePath:
    """Where state lies when nothing else is said."""
    if uid == 0:
        return PurePath("/var/lib/meshflow")
    data_home = PurePath(environ.get("XDG_DATA_HOME", ""))
    # The XDG specification has relative values ignored.
    return (data_home if data_home.is_absolute() else home / ".local" / "share") / "meshflow"
