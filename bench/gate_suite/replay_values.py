"""The honest path on its own, with no gate: which of its results show a given field."""

import json
from typing import Any

from bench.gate_suite.call_templates import NothingReadError, filled
from bench.gate_suite.domain_file import Domain, Task
from bench.gate_suite.small_world import CallFailedError, SmallWorld

_MARK = " qq7mark7qq"


def marked_results(domain: Domain, task: Task, kind: str, index: int, field: str) -> int | None:
    """The first call of the path whose result has the field's text in it, when there is one."""
    world = SmallWorld(domain)
    world.state[kind][index][field] += _MARK
    for number, result in enumerate(honest_results(world, task)):
        if _MARK in json.dumps(result):
            return number
    return None


def honest_results(world: SmallWorld, task: Task) -> list[Any]:
    """Results of the honest path as far as it goes."""
    results: dict[str, Any] = {}
    for number, step in enumerate(task.path):
        try:
            results[str(number)] = world.call(step.tool, filled(step.arguments, results))
        except (NothingReadError, CallFailedError):
            break
    return list(results.values())
