"""The words by which rules know that something stands beside them: a data file, read once.

Threat: PHI leakage in audit logs
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

WORDS_FILE: Final = "identifier_words.toml"


@cache
def _lists() -> Mapping[str, list[str]]:
    return tomllib.loads(files("app.privacy").joinpath(WORDS_FILE).read_text("utf-8"))


def any_of(name: str) -> str:
    """An expression for any word of this list. KeyError where there is no such list."""
    return "(?:" + "|".join(_lists()[name]) + ")"


@cache
def words_of_list(name: str) -> frozenset[str]:
    """The words of a list that holds no expressions."""
    return frozenset(_lists()[name])
