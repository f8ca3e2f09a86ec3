"""What a Postgres URL may look like: checked here, so that no part of a wrong one is ever told."""

import re
from urllib.parse import parse_qsl

_SCHEMES = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})
_LAST_PORT = 65_535
# What may stand after the question mark: the driver's own names, and `sslmode`, which is told to
# it as `ssl`. It raises a TypeError at any other.
_MOST_DIGITS = 5
_GSS_LIBRARIES = frozenset({"gssapi", "sspi"})
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_SESSIONS = frozenset({"any", "primary", "standby", "read-write", "read-only", "prefer-standby"})
# As the library that opens it reads it: a password ends at the first "@". The rest of one that was
# not encoded would stand where host and port stand, and those are named when they do not work.
_PLACE = re.compile(
    r"(?:[^:/@]*(?::[^@]*)?@)?(?:\[[0-9A-Fa-f:.%]+\]|[^/:?@\[\]]*)(?::([0-9]{1,5}))?"
    r"(?:/[^?@]*)?(?:\?(.*))?"
)


def is_database_url(value: str) -> bool:
    """Whether it has the shape of one. Nothing is said of whether anybody answers there."""
    scheme, _, rest = value.partition("://")
    place = _PLACE.fullmatch(rest)
    if scheme not in _SCHEMES or not rest or not value.isprintable() or place is None:
        return False
    return int(place.group(1) or 0) <= _LAST_PORT and _are_known(place.group(2) or "")


def _are_known(query: str) -> bool:
    pairs = parse_qsl(query, keep_blank_values=True)
    return len({name for name, _ in pairs}) == len(pairs) and all(
        _is_known(name, value) for name, value in pairs
    )


def _is_known(name: str, value: str) -> bool:
    match name:
        case "ssl" | "sslmode":
            return value in _SSL_MODES
        case "target_session_attrs":
            return value in _SESSIONS
        case "port":
            return value.isascii() and value.isdecimal() and len(value) <= len(str(_LAST_PORT))
        case "prepared_statement_cache_size":
            return value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS
        case "gsslib":
            return value in _GSS_LIBRARIES
        case "host" | "passfile" | "service" | "servicefile" | "krbsrvname":
            return bool(value)
        case _:
            return False
