"""Tells a random token from the long words of code, paths, ids and encoded prose, by its look.

It is the last net under the rules that know a vendor or a key word, and tuned for precision: what
has a known harmless form stays. No promise is made for hexadecimal, lower-case or longer tokens.

Threat: PHI leakage in audit logs
"""

import base64
import binascii
import math
from collections import Counter
from operator import ne

from app.privacy.linear_regex import compiled

# Ids that every record of a model call holds, and public things: none of them opens a door.
_ID_PREFIXES = (
    "req msg toolu srvtoolu call chatcmpl resp run evt event cus file batch msgbatch thread asst "
    "step key apr hook ctx container rs fc ws pi ch in sub prod price acct org user proj pm"
)
_PUBLIC_PREFIXES = "chatcmpl- cmpl- AAAAB3Nza AAAAC3Nza AAAAE2Vj sha256- sha384- sha512-"
HARMLESS_PREFIXES = (
    *(f"{prefix}_".encode() for prefix in _ID_PREFIXES.split()),
    *(prefix.encode() for prefix in _PUBLIC_PREFIXES.split()),
)
# Words after which a token names content or a place in history.
HARMLESS_LEADS = (
    "commit", "sha", "sha1", "sha256", "sha384", "sha512", "etag", "integrity", "digest",
    "checksum", "fingerprint", "revision", "request[_-]?id", "trace[_-]?id", "cursor", "base64",
)  # fmt: skip

SHORTEST = 20
LONGEST_ENCODED = 4096  # base64 of text is looked into up to here
LONGEST = 256  # beyond it is data (an image, a certificate), and data has other rules
_LEAST_ENTROPY = 3.4  # bits a character; random base62 of 20 has about 4.0
_MOST_WORDLIKE = 0.4  # share of the characters in runs that read like words
_FEWEST_CHANGES = 0.3  # share of neighbours of different class; random base62 has 0.62

GATE = "[A-Za-z0-9+/_-]{20,}={0,2}"
TOKEN = compiled(GATE)
_PREFIXED_ID = compiled("[a-z]{2,12}_01[A-Za-z0-9]{20,24}")
_ENCODED = compiled(r"(?:[A-Za-z0-9+/]+|[A-Za-z0-9_-]+)={0,2}")
_WORDS = compiled(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}|[0-9]{5,}")
_PATHLIKE = compiled(r"[A-Za-z]?[a-z]{2,}|[A-Z]{2,}|[a-z0-9_.-]{1,}")
_LEAD = compiled(
    r"(?i)(?:"
    + "|".join(HARMLESS_LEADS)
    + r")[a-z_-]{0,12}[\"'\\]{0,3}\s{0,2}[:=/@\s-][\"'\\\s]{0,3}$"
)
_UUIDS = compiled(r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_CLASSES = bytes(
    ord("d" if c.isdigit() else "u" if c.isupper() else "l" if c.islower() else "s")
    for c in (chr(code) if code < 128 else "." for code in range(256))  # noqa: PLR2004  # ASCII
)
_LOOK_BACK = 64
SETTINGS = "token/1 " + " ".join(
    map(str, (SHORTEST, LONGEST, _LEAST_ENTROPY, _MOST_WORDLIKE, _FEWEST_CHANGES))
)


def looks_random(text: bytes, start: int, end: int) -> bool:
    """Whether `text[start:end]` (one match of TOKEN) is likely a secret, given what precedes it."""
    token = text[start:end].strip(b"-=/")
    if not SHORTEST <= len(token) <= LONGEST or token.startswith(HARMLESS_PREFIXES):
        return False
    classes = token.translate(_CLASSES)
    if not (b"d" in classes and b"u" in classes and b"l" in classes):
        return False
    if _changes(classes) < _FEWEST_CHANGES or _entropy(token) < _LEAST_ENTROPY:
        return False
    if _UUIDS.search(token) is not None or _PREFIXED_ID.fullmatch(token) is not None:
        return False
    if _wordlike(token) > _MOST_WORDLIKE or _is_path(token):
        return False
    before = text[max(0, start - _LOOK_BACK) : start]
    if _LEAD.search(before) is not None or _inside_url(before):
        return False
    return decoded(token) is None


def decoded(token: bytes) -> bytes | None:
    """What a token says when it is base64 of readable text, else None."""
    if _ENCODED.fullmatch(token) is None or b"u" not in token.translate(_CLASSES):
        return None  # readable text in base64 always holds capitals
    body = token.rstrip(b"=")
    try:
        plain = base64.urlsafe_b64decode(
            body.replace(b"+", b"-").replace(b"/", b"_") + b"=" * (-len(body) % 4)
        )
        text = plain.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    readable = all(sign.isprintable() or sign in "\r\n\t" for sign in text)
    return plain if readable and text else None


def _entropy(token: bytes) -> float:
    size = len(token)
    return -sum(n / size * math.log2(n / size) for n in Counter(token).values())


def _changes(classes: bytes) -> float:
    changed: int = sum(map(ne, classes, classes[1:]))
    return changed / (len(classes) - 1)


def _wordlike(token: bytes) -> float:
    return sum(m.end() - m.start() for m in _WORDS.finditer(token)) / len(token)


def _is_path(token: bytes) -> bool:
    parts = [part for part in token.split(b"/") if part]
    if len(parts) < 2:  # noqa: PLR2004  # two names make a path
        return False
    words = sum(_PATHLIKE.fullmatch(part) is not None for part in parts)
    return words * 2 >= len(parts)


def _inside_url(before: bytes) -> bool:
    scheme = before.rfind(b"://")
    return scheme >= 0 and not any(sign in before[scheme:] for sign in b" \t\r\n\"'?<>")
