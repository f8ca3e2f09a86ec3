"""Entity tags (RFC 9110 §8.8.3): whoever knows a state is told 304, whoever missed one 412.

The tag of a run is a keyed digest of what is shown, under a key that dies with the run: it says
nothing to whoever does not hold the run. It is weak, and given only after the run has verified.
"""

import hmac

_TAG_BYTES = 16
_MOST_CHARACTERS = 4_096


def version_tag(version: int) -> str:
    """The tag of what has a number for each version: a strong one."""
    return f'"{version}"'


def is_meant(if_match: str, tag: str) -> bool:
    """Whether a request's If-Match names this tag, compared strongly (RFC 9110 §13.1.1)."""
    if len(if_match) > _MOST_CHARACTERS:
        return False
    return any(item.strip() in ("*", tag) for item in if_match.split(","))


def run_tag(key: bytes, shown: bytes) -> str:
    """The tag of a run as it is shown to one kind of reader."""
    digest = hmac.digest(key, b"meshflow/etag/v1\0" + shown, "sha256")
    return f'W/"{digest[:_TAG_BYTES].hex()}"'


def is_known(if_none_match: str | None, tag: str) -> bool:
    """Whether a request's If-None-Match names this tag, compared weakly (RFC 9110 §13.1.2)."""
    if if_none_match is None or len(if_none_match) > _MOST_CHARACTERS:
        return False
    if if_none_match.strip() == "*":
        return True
    bare = tag.removeprefix("W/")
    return any(item.strip().removeprefix("W/") == bare for item in if_none_match.split(","))
