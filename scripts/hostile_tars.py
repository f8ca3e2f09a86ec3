"""Files that look like a bundle and are none, for the vectors."""

from scripts.vector_bundles import NAMES, Members, tar_of
from scripts.vector_parts import flipped


def hostile_tars(whole: Members) -> dict[str, bytes]:
    """Files that are no bundle, by what is wrong with them."""
    small = dict.fromkeys(NAMES, b"") | {NAMES[0]: whole[NAMES[0]]}
    tiny = tar_of(small | {NAMES[-1]: b"\n"})
    end = len(tiny.rstrip(b"\0")) + 511  # the last member is one byte and its padding
    order = tar_of({name: small[name] for name in (*NAMES[1:], NAMES[0])})
    link = bytearray(tiny)
    link[156] = ord("2")
    return {
        "a time": with_field(tiny, 136, b"00000000001"),
        "an owner": with_field(tiny, 108, b"0001750"),
        "an owner's name": with_field(tiny, 265, b"anna"),
        "another mode": with_field(tiny, 100, b"0000755"),
        "a prefix": with_field(tiny, 345, b"etc"),
        "a size that is no number": with_field(tiny, 124, b"0000000 12x"),
        "the GNU format": with_field(tiny, 257, b"ustar  \0"),
        "one block of zeros at the end": tiny[: end + 512],
        "two blocks and a half of zeros at the end": tiny[: end + 1280],
        "padding that is not zero": tiny[: end - 1] + b"\x01" + tiny[end:],
        "a member twice": tiny[:end] + tiny[end - 1024 :],
        "nothing": b"",
        "zeros": bytes(1024),
        "cut in the middle": tiny[:2000],
        "cut before the end": tiny[:5120],
        "a wrong checksum": flipped(tiny, 8 * 150),
        "a link": resummed(link),
        "an absolute name": tar_of({f"/{NAMES[0]}": whole[NAMES[0]]}),
        "members in another order": order,
        "a member missing": tar_of({name: small[name] for name in NAMES[:-1]}),
        "a member too many": tar_of(small | {"more.json": b"{}\n"}),
        "bytes after the end": tiny[:-1] + b"\x01",
        "a manifest of another format": tar_of(
            small | {NAMES[0]: whole[NAMES[0]].replace(b"bundle/v1", b"bundle/v2")}
        ),
        "a manifest that is no JSON": tar_of(small | {NAMES[0]: b"{\n"}),
    }


def with_field(tar: bytes, at: int, field: bytes) -> bytes:
    """A tar whose first header has another field, and the checksum that fits it."""
    changed = bytearray(tar)
    changed[at : at + len(field)] = field
    return resummed(changed)


def resummed(header: bytearray) -> bytes:
    """A tar whose first header has the checksum that fits it."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)
