"""Ordinary commands do in the virtual shell what they did in a real bash: same words, same end.

What a bash wrote and ended with was recorded once, in these files (`corpus/shell_benign.jsonl`).
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.execution import EngineName, ExecResult
from app.tools.shell_guard import load_shell_refusals, refused
from tests.support.escape_scene import (
    corpus,
    give,
    held,
    open_directory,
    request_for,
    runner_for,
)

ROWS: Mapping[str, dict[str, Any]] = {row["id"]: row for row in corpus("shell_benign")}
FILES = {
    "people.csv": "name,city,age\nAda,London,36\nGrace,New York,85\nAlan,London,41\n"
    "Edsger,Rotterdam,72\nBarbara,New York,80\n",
    "log.txt": "2026-01-01 INFO start\n2026-01-01 ERROR disk full\n2026-01-02 INFO ok\n"
    "2026-01-02 WARN slow\n2026-01-03 ERROR disk full\n2026-01-03 ERROR timeout\n",
    "data.json": '{"items":[{"id":1,"tags":["a","b"],"price":2.5},{"id":2,"tags":["b"],"price":4},'
    '{"id":3,"tags":[],"price":1}],"name":"x"}\n',
    "words.txt": "pear\napple\nfig\napple\nkiwi\nfig\napple\n",
    "notes/a.md": "# Title\n\nSome text with TODO: one\n",
    "notes/b.md": "# Other\n\nTODO: two\nTODO: three\n",
}


def _furnish(base: Path) -> None:
    for name, text in FILES.items():
        path = base / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        give(path.parent)
        give(path)


@pytest.fixture(scope="module")
def ends() -> dict[str, ExecResult]:
    """How each command ends, confined."""

    async def end(command: str) -> ExecResult:
        with open_directory() as base, held(base) as directory:
            _furnish(base)
            request = request_for(command, directory, engine=EngineName.VIRTUAL_SHELL)
            return await runner.run(request)

    async def go() -> dict[str, ExecResult]:
        try:
            return {name: await end(row["command"]) for name, row in ROWS.items()}
        finally:
            await runner.close()

    runner = runner_for()
    return asyncio.run(go())


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) >= 30


@pytest.mark.parametrize("name", sorted(ROWS))
def test_an_ordinary_command_does_what_a_real_bash_did(
    name: str, ends: dict[str, ExecResult]
) -> None:
    row, told = ROWS[name], ends[name]
    assert (told.stdout.decode(), told.exit_code) == (row["stdout"], row["exit_code"]), told.stderr


def test_the_first_layer_lets_all_of_them_pass() -> None:
    refusals = load_shell_refusals(None)
    objections = {name: refused(row["command"], refusals) for name, row in ROWS.items()}
    assert {name for name, objection in objections.items() if objection is not None} == set()
