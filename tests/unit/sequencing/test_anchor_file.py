"""The anchor file only goes forward: it takes what follows, and nothing that goes back or aside."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.domain.errors import WitnessAheadError, WitnessRefusedError, WitnessUnavailableError
from app.ledger.hashing import u64be
from app.sequencing.anchor_file import AnchorFile
from app.transparency.checkpoint import Checkpoint, sign_checkpoint
from app.transparency.merkle_tree import hash_leaf, tree_root
from app.transparency.tiles import consistency_proof, grown

pytestmark = pytest.mark.anyio
ORIGIN = "test.local/ledger/00"


def leaves(count: int, kind: bytes = b"") -> list[bytes]:
    return [hash_leaf(kind + u64be(number)) for number in range(count)]


def note(size: int, kind: bytes = b"", origin: str = ORIGIN) -> str:
    root = tree_root(leaves(size, kind))
    return sign_checkpoint(Checkpoint(origin=origin, size=size, root=root), bytes(32)).decode()


async def publish(anchor: AnchorFile, size: int, kind: bytes = b"") -> None:
    async def proof_from(old: int) -> Sequence[bytes]:
        return consistency_proof(old, size, grown(0, {}, leaves(size, kind)))

    assert await anchor.publish(note(size, kind), size, proof_from) is None


async def test_it_takes_what_follows_and_remembers_the_newest(tmp_path: Path) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    assert await anchor.newest(ORIGIN) is None
    for size in (1, 3, 3, 300):
        await publish(anchor, size)
    newest = await AnchorFile(tmp_path / "anchor").newest(ORIGIN)
    assert newest is not None
    assert (newest.size, newest.root) == (300, tree_root(leaves(300)))
    assert await anchor.newest("test.local/ledger/01") is None
    assert len((tmp_path / "anchor").read_bytes().splitlines()) == 3
    assert (tmp_path / "anchor").stat().st_mode & 0o777 == 0o600


async def test_it_refuses_to_go_back(tmp_path: Path) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    await publish(anchor, 5)
    with pytest.raises(WitnessAheadError) as told:
        await publish(anchor, 4)
    assert told.value.size == 5


@pytest.mark.parametrize("size", [5, 6])
async def test_it_refuses_another_history(tmp_path: Path, size: int) -> None:
    anchor = AnchorFile(tmp_path / "anchor")
    await publish(anchor, 5)
    with pytest.raises(WitnessRefusedError) as told:
        await publish(anchor, size, b"other")
    assert told.value.is_fork


async def test_a_torn_last_line_is_passed_over_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "anchor"
    anchor = AnchorFile(path)
    await publish(anchor, 2)
    with path.open("ab") as file:
        file.write(b'{"checkpoint": "test.lo')
    await publish(anchor, 3)
    newest = await anchor.newest(ORIGIN)
    assert newest is not None
    assert newest.size == 3


async def test_a_leader_that_was_replaced_while_it_asked_does_not_set_the_file_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "anchor"
    anchor = AnchorFile(path)
    await publish(anchor, 2)

    async def overtaken(old: int) -> Sequence[bytes]:
        await publish(AnchorFile(path), 5)
        return consistency_proof(old, 3, grown(0, {}, leaves(3)))

    with pytest.raises(WitnessUnavailableError):
        await anchor.publish(note(3), 3, overtaken)
    newest = await anchor.newest(ORIGIN)
    assert newest is not None
    assert newest.size == 5


@pytest.mark.parametrize(
    "line", ['{"checkpoint": "no note"}', '{"checkpoint": "\\ud800"}', '{"other": 1}', "[]", "7"]
)
async def test_a_damaged_file_takes_nothing_and_is_not_read_as_an_older_one(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "anchor"
    anchor = AnchorFile(path)
    await publish(anchor, 2)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    before = path.read_bytes()
    with pytest.raises(WitnessUnavailableError, match="damaged"):
        await anchor.newest(ORIGIN)
    with pytest.raises(WitnessUnavailableError, match="damaged"):
        await publish(anchor, 3)
    assert path.read_bytes() == before


async def test_a_file_that_cannot_be_written_is_no_anchor(tmp_path: Path) -> None:
    with pytest.raises(WitnessUnavailableError) as told:
        await publish(AnchorFile(tmp_path / "none" / "anchor"), 1)
    assert str(tmp_path) not in str(told.value)
