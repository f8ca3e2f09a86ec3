"""The file tools give text in parts, whole writes, and listings of one line a name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.errors import ToolError
from app.domain.run import Json
from app.sandbox.workspace import Workspace, open_workspace_root
from app.tools.files import ListFiles, ReadFile, WriteFile


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    root = open_workspace_root(tmp_path, forbidden=[])
    opened = root.for_run("a" * 32, "b" * 32)
    yield opened
    opened.close()
    root.close()


@pytest.mark.anyio
async def test_what_was_written_is_read_and_listed(workspace: Workspace) -> None:
    content = "Grüße\n"
    written = await WriteFile().run({"path": "notes/a.txt", "content": content}, workspace)
    assert written == "wrote 8 bytes"
    assert await ReadFile().run({"path": "notes/a.txt"}, workspace) == content
    assert await ListFiles().run({"path": "notes"}, workspace) == "file\t8\ta.txt"
    assert await ListFiles().run({}, workspace) == "directory\t0\tnotes"


@pytest.mark.anyio
async def test_an_empty_directory_says_so(workspace: Workspace) -> None:
    assert await ListFiles().run({}, workspace) == "(empty)"


@pytest.mark.anyio
@pytest.mark.parametrize("shift", range(3))
async def test_a_long_file_is_read_in_parts_that_add_up(workspace: Workspace, shift: int) -> None:
    content = "x" * shift + "€" * 50_000
    workspace.write_file("long", content.encode())
    found, offset = "", 0
    for _ in range(10):
        part = await ReadFile().run({"path": "long", "offset": offset}, workspace)
        text, cut, rest = part.partition("\n[truncated: read on with offset ")
        found += text
        if not cut:
            break
        offset = int(rest.removesuffix("]"))
    assert found == content
    assert offset > 0


@pytest.mark.anyio
async def test_a_file_of_just_one_part_has_no_note(workspace: Workspace) -> None:
    workspace.write_file("part", b"x" * 48 * 1024)
    assert await ReadFile().run({"path": "part"}, workspace) == "x" * 48 * 1024


@pytest.mark.anyio
@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"caf\xe9", "€".encode()[:2]])
async def test_what_is_not_text_is_refused(workspace: Workspace, data: bytes) -> None:
    workspace.write_file("binary", data)
    with pytest.raises(ToolError, match="not UTF-8"):
        await ReadFile().run({"path": "binary"}, workspace)


@pytest.mark.anyio
@pytest.mark.parametrize("offset", ["1", 1.0, True, -1, 1 << 41, None])
async def test_an_argument_of_almost_the_right_type_is_refused(
    workspace: Workspace, offset: Json
) -> None:
    workspace.write_file("a", b"text")
    with pytest.raises(ToolError, match="offset"):
        await ReadFile().run({"path": "a", "offset": offset}, workspace)
