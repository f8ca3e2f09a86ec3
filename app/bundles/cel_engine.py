"""Loads the engine of conditions alone, without the command line that its package brings along.

Importing the package takes seconds and carries a terminal's libraries; the engine is one extension
module of it, and needs none of them.
"""

import importlib.machinery
import importlib.util
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

from app.domain.errors import ConfigurationError
from app.domain.run import JsonObject


class Program(Protocol):
    """A condition as the engine holds it."""

    def execute(self, context: object) -> object:
        """Its value. Raises whatever the engine raises."""

    def references(self) -> Mapping[str, list[str]]:
        """The functions and operators that it uses, by the key `functions`."""


class Engine(Protocol):
    """What is used of the extension module."""

    @property
    def compile(self) -> Callable[[str], Program]:
        """Reads a condition."""

    @property
    def Context(self) -> "MakeContext":  # noqa: N802 - the library's own name
        """Makes what a condition sees."""


class MakeContext(Protocol):
    """Makes the engine's view of variables."""

    def __call__(self, variables: JsonObject) -> object:
        """The view."""


class _Loaded:
    """The two names that are used of it."""

    def __init__(self, compile_condition: Callable[[str], Program], context: MakeContext) -> None:
        self.compile = compile_condition
        self.Context = context


@lru_cache(maxsize=1)
def engine() -> Engine:
    """The engine. ConfigurationError when the distribution is not installed as it should be."""
    package = importlib.util.find_spec("cel")
    places = None if package is None else package.submodule_search_locations
    found = None if places is None else importlib.machinery.PathFinder.find_spec("cel.cel", places)
    if found is None or found.loader is None:
        raise ConfigurationError("common-expression-language is not installed")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return _Loaded(module.compile, module.Context)
