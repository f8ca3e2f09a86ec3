"""What a Postgres URL may look like: checked here, so that no part of a wrong one is ever told."""

import re

_SCHEMES = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})
_LAST_PORT = 65_535
# As the library that opens it reads it: a password ends at the first "@". The rest of one that was
# not encoded would stand where host and port stand, and those are named when they do not work.
_PLACE = re.compile(
    r"(?:[^:/@]*(?::[^@]*)?@)?(?:\[[0-9A-Fa-f:.%]+\]|[^/:?@\[\]]*)(?::([0-9]{1,5}))?"
    r"(?:/[^?@]*)?(?:\?.*)?"
)


def is_database_url(value: str) -> bool:
    """Whether it has the shape of one. Nothing is said of whether anybody answers there."""
    scheme, _, rest = value.partition("://")
    place = _PLACE.fullmatch(rest)
    if scheme not in _SCHEMES or not rest or not value.isprintable() or place is None:
        return False
    return int(place.group(1) or 0) <= _LAST_PORT
