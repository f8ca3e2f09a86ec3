"""Reads the members of an export bundle: a strict tar, in memory, nothing unpacked to disk.

Only the nine regular files of section 13, in their order, with the times, owners and modes it says;
no links, no other header, nothing after the end but zeros.

Threat: Ledger tampering
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from app.offline.strict_json import BrokenError, Json, Row, UnusableError, parse_canonical

LARGEST_BUNDLE = 512 * 1024 * 1024
FORMAT = "meshflow-bundle/v1"
MANIFEST = "manifest.json"
RECORDS = "records.jsonl"
PAYLOADS = "payloads.jsonl"
BATCHES = "batches.jsonl"
WRITERS = "writers.jsonl"
CHECKPOINT = "checkpoint.note"
ANCHOR = "anchor.json"
OPERATOR = "operator.note"
ADMINISTRATION = "administration.jsonl"
MEMBERS = (
    MANIFEST,
    RECORDS,
    PAYLOADS,
    BATCHES,
    WRITERS,
    CHECKPOINT,
    ANCHOR,
    OPERATOR,
    ADMINISTRATION,
)

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_OCTAL = b"01234567"
# Where the fields of a ustar header begin and end (POSIX.1-2017, pax, "ustar Interchange Format").
_FIELDS: Mapping[str, tuple[int, int]] = {
    "name": (0, 100),
    "mode": (100, 108),
    "uid": (108, 116),
    "gid": (116, 124),
    "size": (124, 136),
    "mtime": (136, 148),
    "chksum": (148, 156),
    "typeflag": (156, 157),
    "linkname": (157, 257),
    "magic": (257, 265),
    "uname": (265, 297),
    "gname": (297, 329),
    "devmajor": (329, 337),
    "devminor": (337, 345),
    "prefix": (345, 500),
    "rest": (500, 512),
}
_EMPTY = ("linkname", "uname", "gname", "prefix", "rest")
_ZERO = ("uid", "gid", "mtime", "devmajor", "devminor")
_MODE = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The members as they are, the ids the manifest names, and what does not match its hashes."""

    log: bytes
    run: bytes
    members: Mapping[str, bytes]
    mismatched: tuple[str, ...]


def read_bundle(data: bytes) -> Bundle:
    """The bundle in these bytes. UnusableError if they are none."""
    if len(data) > LARGEST_BUNDLE:
        raise UnusableError("the file is larger than a bundle may be")
    members = dict(_files(data))
    if tuple(members) != MEMBERS:
        raise UnusableError("the file has not the members of a bundle, in their order")
    try:
        return _with_manifest(members)
    except BrokenError as error:
        raise UnusableError(f"{MANIFEST} {error.reason}") from None


def _with_manifest(members: Mapping[str, bytes]) -> Bundle:
    row = Row(one_value(members[MANIFEST]), ("files", "format", "log", "run"))
    if row.text("format") != FORMAT:
        raise BrokenError(f"is not of the format {FORMAT}")
    files = Row(row.value("files"), [name for name in MEMBERS if name != MANIFEST])
    mismatched = tuple(
        name
        for name in MEMBERS
        if name != MANIFEST and files.hexadecimal(name, 32) != sha256(members[name]).digest()
    )
    return Bundle(
        log=row.hexadecimal("log", 16),
        run=row.hexadecimal("run", 16),
        members=members,
        mismatched=mismatched,
    )


def one_value(data: bytes) -> Json:
    """The one JSON value of a member, which a newline ends."""
    if not data.endswith(b"\n"):
        raise BrokenError("does not end with a newline")
    return parse_canonical(data[:-1])


def lines_of(data: bytes) -> Iterator[bytes]:
    """The lines of a member, each of which a newline ends. BrokenError at the end if one is not."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        if end < 0:
            raise BrokenError("does not end with a newline")
        yield data[at:end]
        at = end + 1


def _files(data: bytes) -> Iterator[tuple[str, bytes]]:
    at, seen = 0, set[str]()
    while True:
        header = data[at : at + _BLOCK]
        if len(header) != _BLOCK:
            raise UnusableError("the file is no whole tar")
        if header == _ZEROS:
            break
        name, size = _entry(header)
        if name in seen or name not in MEMBERS:
            raise UnusableError("the tar has a member that a bundle has not, or one twice")
        seen.add(name)
        start = at + _BLOCK
        end = start + size
        at = start + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if at > len(data) or any(data[end:at]):
            raise UnusableError("the tar ends inside a member, or its padding is not zero")
        yield name, data[start:end]
    rest = len(data) - at
    if rest < 2 * _BLOCK or rest % _BLOCK or data.count(0, at) != rest:
        raise UnusableError("the tar does not end with zero blocks alone")


def _entry(header: bytes) -> tuple[str, int]:
    """Name and size of a plain file."""
    fields = {name: header[start:end] for name, (start, end) in _FIELDS.items()}
    start, end = _FIELDS["chksum"]
    total = sum(header) - sum(fields["chksum"]) + 32 * (end - start)
    if _octal(fields["chksum"].rstrip(b" \x00")) != total:
        raise UnusableError("a header of the tar has a wrong checksum")
    if fields["magic"] != b"ustar\x0000" or fields["typeflag"] != b"0":
        raise UnusableError("the tar has something that is no plain file of the ustar format")
    if any(any(fields[name]) for name in _EMPTY):
        raise UnusableError("the tar has a link, an owner's name or a long name")
    if any(_number(fields[name]) for name in _ZERO) or _number(fields["mode"]) != _MODE:
        raise UnusableError("the tar has a time, an owner or a mode that a bundle has not")
    name = fields["name"].rstrip(b"\x00")
    if not name.isascii() or b"\x00" in name:
        raise UnusableError("the tar has a member whose name is none")
    return name.decode("ascii"), _number(fields["size"])


def _number(field: bytes) -> int:
    """Octal digits up to a NUL; a field of NULs alone is zero."""
    digits = field.rstrip(b"\x00")
    return _octal(digits) if digits else 0


def _octal(digits: bytes) -> int:
    if not digits or any(digit not in _OCTAL for digit in digits):
        raise UnusableError("a header of the tar has a number that is none")
    return int(digits, 8)
