"""Counting a workspace before a write: it stops at the quota, however much is there."""

import os
from pathlib import Path

import pytest

from app.domain.errors import ToolError
from app.sandbox.openat2 import open_beneath
from app.sandbox.workspace_path import MAX_DEPTH
from app.sandbox.workspace_usage import count_usage


def test_it_counts_no_more_entries_than_decide(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}").touch()
    held = os.open(tmp_path, os.O_PATH)
    usage = count_usage(open_beneath, held, 10)
    whole = count_usage(open_beneath, held, 1000)
    os.close(held)
    assert (usage.entries, whole.entries) == (11, 50)


def test_it_goes_no_deeper_than_a_path_can_name(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(MAX_DEPTH + 1):
        deep /= "d"
    deep.mkdir(parents=True)
    held = os.open(tmp_path, os.O_PATH)
    with pytest.raises(ToolError, match="nested too deeply"):
        count_usage(open_beneath, held, 1000)
    os.close(held)
