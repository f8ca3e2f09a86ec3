"""How long a server asks to be left alone: the field `Retry-After`, read without trust.

Source: RFC 9110, section 10.2.3.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MOST_CHARACTERS = 64


def retry_after_seconds(text: str | None, now: datetime) -> float | None:
    """The field in seconds; None for what is none, or is past."""
    if text is None or len(text) > _MOST_CHARACTERS:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(int(text))
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    left = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return left if left > 0 else None
