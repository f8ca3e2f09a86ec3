"""No path leads out of a run's workspace: planted traps, other tenants, and a racing swapper.

Each row of the corpus is put to every file tool, with both ways of opening. Control arms open the
same paths without a guard and must reach the canary, so that the traps are known to be traps.
MESHFLOW_PROOF=1 raises the racing opens from 5,000 to 100,000.

Threat: Privilege escalation via tool calls
"""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import ToolError
from app.sandbox.openat2 import Opener, open_beneath, open_by_openat2, open_by_walk
from tests.support.path_attack import (
    CANARY,
    OTHER_RUN,
    OTHER_TENANT,
    RUN,
    TENANT,
    Ground,
    answers,
    corpus,
    ground,
    guarded,
    joined,
    layer_of,
    path_of,
    plant,
    race,
    resolved,
    swapper,
)

RACING_OPENS = 100_000 if os.getenv("MESHFLOW_PROOF") == "1" else 5_000
RACING_WRITES = RACING_OPENS // 50
CONTROL_LEAKS = RACING_OPENS // 1_000
ROWS = corpus()
_MEMBERS = {"id", "class", "engine", "payload", "oracle", "layer", "source"}
ARMS = pytest.mark.parametrize(
    "opener", [open_by_openat2, open_by_walk, open_beneath], ids=["openat2", "walk", "either"]
)
EACH = pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["id"]))


def test_the_corpus_is_as_large_as_promised_and_every_row_is_whole() -> None:
    assert len(ROWS) >= 40
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert all(row.keys() == _MEMBERS for row in ROWS)
    assert sum(row["oracle"]["kind"] != "holds" for row in ROWS) >= 30
    assert {row["layer"] for row in ROWS} == {"path", "opening", "kind", "none"}


@ARMS
@EACH
async def test_no_file_tool_is_led_outside(
    tmp_path: Path, row: dict[str, Any], opener: Opener
) -> None:
    with ground(tmp_path, opener) as on:
        plant(row, on)
        before = on.everything_else()
        told = await answers(on, path_of(row, on))
        assert on.everything_else() == before
    for answer in told:
        assert CANARY.decode() not in answer.text
    for answer in told[:6]:  # the rest names what was planted, with whatever name it has
        for secret in (str(tmp_path), TENANT, RUN, OTHER_RUN, OTHER_TENANT, "Errno"):
            assert secret not in answer.text, answer
    reading, writing = told[0], told[4]
    assert reading.refused
    assert (layer_of(writing) == "none") == (row["layer"] == "none"), writing
    if row["layer"] != "none":  # where the path is only odd, there is just no such file
        assert layer_of(reading) == row["layer"]


@EACH
def test_control_opened_naively_the_trap_does_what_its_row_says(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    with ground(tmp_path) as on:
        plant(row, on)
        assert joined(on, path_of(row, on)) == row["oracle"]["kind"]


def test_control_resolving_before_opening_still_leaks(tmp_path: Path) -> None:
    leaked = []
    for row in ROWS:
        place = tmp_path / row["id"]
        place.mkdir()
        with ground(place) as on, suppress(OSError, ValueError, ToolError):
            plant(row, on)
            if resolved(on, path_of(row, on)) == CANARY:
                leaked.append(row["class"])
    print(f"resolve, then open leaks: {dict(Counter(leaked))}")
    assert set(leaked) == {"absolute", "climbing", "link"}


@ARMS
def test_what_is_allowed_works_beside_the_traps(tmp_path: Path, opener: Opener) -> None:
    with ground(tmp_path, opener) as on:
        for path in ("a", "a b", "ünï/ço/de", "x/./y//z", "...", "..a/b..", "-rf", "real/SECRET"):
            on.workspace.write_file(path, path.encode())
            assert on.workspace.read_file(path, 100) == path.encode()
        assert on.workspace.read_file("real/secret", 100) == b"inside"


def _moved_away(on: Ground) -> None:
    (on.inside / "real").rename(on.inside / "aside")
    (on.inside / "real").symlink_to(on.outside)


@ARMS
def test_a_directory_that_was_swapped_after_opening_does_not_move_a_write(
    tmp_path: Path, opener: Opener
) -> None:
    with ground(tmp_path, opener) as on:
        # The name of the temporary file is asked for when the parent is already held.
        def swapping(length: int) -> str:
            _moved_away(on)
            return "f" * (2 * length)

        on.workspace._token_hex = swapping
        before = on.everything_else()
        on.workspace.write_file("real/secret", b"mine")
        assert on.everything_else() == before
        assert (on.inside / "aside" / "secret").read_bytes() == b"mine"


@pytest.mark.parametrize("opener", [open_by_openat2, open_by_walk], ids=["openat2", "walk"])
def test_a_racing_swapper_never_gets_a_read_outside(tmp_path: Path, opener: Opener) -> None:
    done = race(tmp_path, guarded, RACING_OPENS, opener=opener)
    print(f"racing opens: {done}")
    assert done.leaked == 0


def test_control_the_same_swapper_gets_the_canary_from_who_resolves_first(tmp_path: Path) -> None:
    done = race(tmp_path, resolved, RACING_OPENS, opener=open_beneath, leaks_wanted=CONTROL_LEAKS)
    print(f"racing opens without a guard: {done}")
    assert done.leaked >= CONTROL_LEAKS


@pytest.mark.parametrize("opener", [open_by_openat2, open_by_walk], ids=["openat2", "walk"])
def test_a_racing_swapper_never_gets_a_write_or_a_listing_outside(
    tmp_path: Path, opener: Opener
) -> None:
    with ground(tmp_path, opener) as on:
        (on.outside / "only-outside").write_bytes(CANARY)
        before = on.everything_else()
        written = 0
        with swapper(on):
            for number in range(RACING_WRITES):
                with suppress(ToolError):
                    on.workspace.write_file("dir/secret", str(number).encode())
                    written += 1
                with suppress(ToolError):
                    on.workspace.write_file("file", b"inside")
                for path in ("dir", "."):
                    with suppress(ToolError):
                        names = {entry.name for entry in on.workspace.list_files(path)}
                        assert "only-outside" not in names
        assert written > 0
        assert on.everything_else() == before


@ARMS
def test_a_full_workspace_refuses_and_leaves_the_others_alone(
    tmp_path: Path, opener: Opener
) -> None:
    with ground(tmp_path, opener) as on:
        megabytes = bytes(16 * 1024 * 1024)
        with pytest.raises(ToolError, match="a file may hold at most 16777216 bytes"):
            on.workspace.write_file("big", megabytes + b"x")
        for number in range(2_000 - 2):  # beside real/ and real/secret
            (on.inside / f"e{number}").touch()
        with pytest.raises(ToolError, match="at most 2000 entries"):
            on.workspace.write_file("one-more", b"")
        other = on.root.for_run(TENANT, OTHER_RUN)
        other.write_file("mine", b"")
        other.close()
        for number in range(4):
            with (on.inside / f"e{number}").open("wb") as sparse:
                sparse.truncate(len(megabytes))
        with pytest.raises(ToolError, match="at most 67108864 bytes"):
            on.workspace.write_file("e9", b"x")
