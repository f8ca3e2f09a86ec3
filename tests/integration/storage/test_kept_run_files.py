"""The files of a run are changed by its owner alone, all or none of them, while it goes on."""

import pytest

from app.domain.errors import LedgerError, StaleEpochError
from app.domain.run import RunStatus, Usage
from app.storage import work_store
from app.storage.companions import Change
from app.storage.work_store import FilesChange
from tests.integration.storage.append_scene import Author, Scene, ending, scene_on
from tests.support.databases import Roles

pytestmark = pytest.mark.anyio
ONE, TWO = b"1" * 32, b"2" * 32


def _put(**files: bytes) -> FilesChange:
    names = {"one": ONE, "two": TWO}
    return FilesChange(sealed={names[name]: blob for name, blob in files.items()}, gone=[])


async def _kept(scene: Scene, author: Author) -> dict[bytes, bytes]:
    return dict(await scene.runs.work.files(author.tenant_id, author.run_id))


async def test_the_owner_adds_changes_and_removes_them(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author, work = await scene.begun(), scene.runs.work
        ids = (author.tenant_id, author.run_id, author.epoch)
        await work.keep_files(*ids, _put(one=b"a", two=b"b"))
        await work.keep_files(*ids, FilesChange(sealed={ONE: b"c"}, gone=[TWO]))
        assert await _kept(scene, author) == {ONE: b"c"}


async def test_nobody_else_does_and_nobody_after_the_end(roles: Roles) -> None:
    async with scene_on(roles) as scene:
        author, other, work = await scene.begun(), await scene.begun(), scene.runs.work
        ids = (author.tenant_id, author.run_id)
        await work.keep_files(*ids, author.epoch, _put(one=b"a"))
        for epoch in (author.epoch - 1, author.epoch + 1):
            with pytest.raises(StaleEpochError):
                await work.keep_files(*ids, epoch, _put(one=b"stolen"))
        assert await _kept(scene, author) == {ONE: b"a"}
        assert await _kept(scene, other) == {}
        await scene.write(author, author.seal(), Change(status=RunStatus.RUNNING, usage=Usage()))
        sealed = author.seal()
        await scene.write(author, sealed, ending(author, sealed))
        assert await _kept(scene, author) == {}, "they went with the last record"
        with pytest.raises(StaleEpochError):
            await work.keep_files(*ids, author.epoch, _put(one=b"late"))


async def test_what_is_too_much_changes_nothing(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_store, "MOST_FILE_BYTES", 5)
    async with scene_on(roles) as scene:
        author, work = await scene.begun(), scene.runs.work
        ids = (author.tenant_id, author.run_id, author.epoch)
        await work.keep_files(*ids, _put(one=b"123"))
        with pytest.raises(LedgerError):
            await work.keep_files(*ids, _put(two=b"456"))
        assert await _kept(scene, author) == {ONE: b"123"}
