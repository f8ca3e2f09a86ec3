"""The names of all settings; one that starts with MESHFLOW_ and is not here refuses to start.

Threat: Unauthorised API access
"""

import difflib
import re
from collections.abc import Mapping

from app.domain.errors import ConfigurationError

PREFIX = "MESHFLOW_"

# Names that hold a secret, without the prefix. Each has a twin that ends in _FILE.
SECRET_NAMES = (
    "API_KEYS",
    "DATABASE_URL",
    "OWNER_DATABASE_URL",
    "SEQUENCER_DATABASE_URL",
    "ERASER_DATABASE_URL",
    "AUDIT_DATABASE_URL",
)
PLAIN_NAMES = (
    "DATA_DIR",
    "WORKSPACE_DIR",
    "LEDGER_KEY_DIR",
    "ERASURE_KEY_FILE",
    "ERASURE_JOURNAL",
    "CONFIG_DIR",
    "RESULT_TTL_SECONDS",
    "RESULT_TTL",
    "MAX_BODY_BYTES",
    "MAX_CONCURRENT_RUNS",
    "MAX_QUEUED_RUNS",
    "MODEL_TIMEOUT_SECONDS",
    "DOCS",
    "LOG_LEVEL",
    "PROVIDER",
    "ANTHROPIC_BASE_URL",
    "HOST",
    "PORT",
)
# Read by the tests and the benches; the server accepts the name and does nothing with it.
FOREIGN_NAMES = ("TEST_DATABASE_URL", "KEY_FILE")
# The provider's own name, without our prefix, so that a key that is already there is found.
PROVIDER_KEY = "ANTHROPIC_API_KEY"

KNOWN = frozenset(
    PREFIX + name
    for name in (*SECRET_NAMES, *(f"{n}_FILE" for n in SECRET_NAMES), *PLAIN_NAMES, *FOREIGN_NAMES)
)

# What a Kubernetes Service whose name begins with "meshflow" puts into every pod beside it.
_LINK = re.compile(
    r"MESHFLOW_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_TCP(?:_(?:PROTO|PORT|ADDR))?)"
)
_LINK_PORT = re.compile(r"MESHFLOW_(?:[A-Z0-9_]+_)?PORT")


def _is_service_link(name: str, value: str) -> bool:
    if _LINK.fullmatch(name):
        return True
    return _LINK_PORT.fullmatch(name) is not None and value.startswith("tcp://")


def refuse_unknown(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names that Kubernetes made, to be ignored; ConfigurationError on any other unknown name."""
    ours = sorted(name for name in environ if name.startswith(PREFIX))
    ignored = tuple(name for name in ours if _is_service_link(name, environ[name]))
    # Compared without the prefix, or everything would resemble everything.
    known = {name.removeprefix(PREFIX): name for name in sorted((*KNOWN, PROVIDER_KEY))}
    for name in ours:
        if name in KNOWN or name in ignored:
            continue
        near = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1, cutoff=0.6)
        hint = f"; did you mean {known[near[0]]}?" if near else ""
        raise ConfigurationError(f"{name} is not a setting{hint}")
    return ignored
