"""The file tools give text in parts, whole writes, and listings of one line a name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.errors import ToolError
from app.domain.run import Json, JsonObject
from app.sandbox.workspace import Workspace, open_workspace_root
from app.tools.files import ListFiles, ReadFile, SearchFiles, WriteFile


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


def _ground(workspace: Workspace) -> None:
    workspace.write_file("a.txt", "first line\nGrüße an alle\nlast.line\n".encode())
    workspace.write_file("b/c.txt", b"FIRST again\n")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"query": "line"}, "a.txt:1:first line\na.txt:3:last.line"),
        ({"query": "t.l"}, "a.txt:3:last.line"),  # text, not an expression
        ({"query": "t.l", "is_pattern": True}, "a.txt:1:first line\na.txt:3:last.line"),
        ({"query": "^first", "is_pattern": True}, "a.txt:1:first line"),
        (
            {"query": "first", "ignore_case": True},
            "a.txt:1:first line\nb/c.txt:1:FIRST again",
        ),
        ({"query": "GRÜSSE", "ignore_case": True}, "(no match in 2 files)"),
        ({"query": "GRÜßE", "ignore_case": True}, "a.txt:2:Grüße an alle"),
        ({"query": "t.L", "ignore_case": True}, "a.txt:3:last.line"),
        ({"query": "^f.*E$", "ignore_case": True, "is_pattern": True}, "a.txt:1:first line"),
        ({"query": "first", "path": "b"}, "(no match in 1 files)"),
        ({"query": "first\nline"}, "(no match in 2 files)"),
    ],
)
async def test_a_search_finds_text_or_a_pattern(
    workspace: Workspace, asked: JsonObject, found: str
) -> None:
    _ground(workspace)
    assert await SearchFiles().run(asked, workspace) == found


@pytest.mark.anyio
@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)a", "[z-a]", "a{2000}", "(a{999}){999}"])
async def test_a_pattern_that_re2_does_not_take_is_refused(
    workspace: Workspace, pattern: str
) -> None:
    with pytest.raises(ToolError, match="RE2"):
        await SearchFiles().run({"query": pattern, "is_pattern": True}, workspace)


@pytest.mark.anyio
async def test_a_search_says_what_it_left_out(workspace: Workspace) -> None:
    workspace.write_file("many", b"hit\n" * 300)
    workspace.write_file("binary", b"hit\0")
    said = (await SearchFiles().run({"query": "hit"}, workspace)).split("\n")
    assert len(said) == 202
    assert said[-2].startswith("[truncated")
    assert said[-1] == "[not searched: 1 files, too large or not text]"


@pytest.mark.anyio
@pytest.mark.parametrize("pattern", ["(a+)+$", "[ab]*a[ab]{500}c", "(([ab]{1,30}){1,30})c"])
async def test_a_pattern_built_to_be_slow_is_bounded_in_steps(
    workspace: Workspace, pattern: str
) -> None:
    # A backtracking engine does not end on these; RE2 does, and the bytes it may see are bounded.
    for number in range(4):
        workspace.write_file(f"f{number}", b"ab" * 1_000_000)
    said = await SearchFiles().run({"query": pattern, "is_pattern": True}, workspace)
    assert "no match" in said
