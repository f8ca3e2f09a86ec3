"""The corpus of ways out of Python as a language, and one attempt of it in an engine of choice."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from app.sandbox.execution import EngineName
from app.sandbox.tool_runner import ToolRunner
from app.tools.python_guard import PythonRefusals, first_objection, load_refusals
from tests.support.escape_scene import Attempt, EscapeScene

CORPUS = Path(__file__).parents[1] / "security" / "corpus" / "language.jsonl"


def language_rows() -> list[dict[str, Any]]:
    """Every row; `engine` lists the engines it is for."""
    return [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


async def attempt(
    scene: EscapeScene, runner: ToolRunner, row: Mapping[str, Any], engine: EngineName
) -> Attempt:
    """Run a row in this engine, without any first layer."""
    return await scene.attempt(runner, {**row, "engine": engine.value})


def first_layer_refuses(row: Mapping[str, Any]) -> bool:
    """Whether the reading before the run says no, with the shipped list."""
    return first_objection(row["payload"], _refusals()) is not None


@cache
def _refusals() -> PythonRefusals:
    return load_refusals(None)
