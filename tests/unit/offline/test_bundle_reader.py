"""A bundle is a tar of nine plain files and nothing else; whatever differs is refused unread."""

import io
import random  # noqa: TID251  # seeded, so that a failure comes back
import tarfile
from collections.abc import Callable

import pytest

from app.offline import bundle_reader
from app.offline.bundle_reader import read_bundle
from app.offline.strict_json import UnusableError
from tests.support.published_bundles import members_named, tar_named

WHOLE = tar_named("plain")


def packed(change: Callable[[tarfile.TarInfo], None], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """The plain bundle, every header changed in one way."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, data in members_named("plain").items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            change(entry)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def test_the_members_are_read_as_they_are() -> None:
    bundle = read_bundle(WHOLE)
    assert dict(bundle.members) == members_named("plain")
    assert bundle.mismatched == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mtime", 1),
        ("uid", 1000),
        ("gid", 1000),
        ("uname", "somebody"),
        ("gname", "somebody"),
        ("mode", 0o755),
        ("type", tarfile.SYMTYPE),
        ("type", tarfile.LNKTYPE),
        ("type", tarfile.CONTTYPE),
        ("linkname", "elsewhere"),
    ],
)
def test_a_header_that_a_bundle_has_not_is_refused(name: str, value: object) -> None:
    with pytest.raises(UnusableError):
        read_bundle(packed(lambda entry: setattr(entry, name, value)))


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT])
def test_other_formats_are_refused(kind: int) -> None:
    with pytest.raises(UnusableError):
        read_bundle(packed(lambda _: None, kind))


def test_what_is_cut_off_anywhere_is_refused() -> None:
    last = len(WHOLE.rstrip(b"\0"))
    for end in [*range(0, last, 97), last, last + 1]:
        with pytest.raises(UnusableError):
            read_bundle(WHOLE[:end])


def test_a_turned_bit_is_refused_or_is_in_a_member() -> None:
    """Outside of members no byte is free; inside, the manifest's hash tells."""
    chance = random.Random("bits of a tar")
    for _ in range(500):
        at = chance.randrange(len(WHOLE))
        turned = bytearray(WHOLE)
        turned[at] ^= 1 << chance.randrange(8)
        try:
            bundle = read_bundle(bytes(turned))
        except UnusableError:
            continue
        assert len(bundle.mismatched) == 1 or bundle.members["manifest.json"] not in WHOLE


def test_a_size_beyond_the_file_is_refused_without_taking_the_memory() -> None:
    entry = tarfile.TarInfo("manifest.json")
    entry.size, entry.mode = 8 * 1024**3 - 1, 0o644
    with pytest.raises(UnusableError):
        read_bundle(entry.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))


def test_a_file_larger_than_a_bundle_may_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_reader, "LARGEST_BUNDLE", len(WHOLE) - 1)
    with pytest.raises(UnusableError, match="larger"):
        read_bundle(WHOLE)
