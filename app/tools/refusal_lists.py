"""Loads lists of what a first layer refuses: the shipped one, and what an operator adds to it.

There is one way to read them, and none by which anything is taken away.

Threat: Privilege escalation via tool calls
"""

import tomllib
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ValidationError

from app.domain.errors import ConfigurationError

_MAX_FILE_BYTES = 256 * 1024


def load_lists(
    file_name: str, config_dir: Path | None, model: type[BaseModel], form: str
) -> dict[str, frozenset[str]]:
    """Each list of `model` with the shipped words and the operator's.

    ConfigurationError when a file cannot be read or is not as `form`, a sentence's end, says.
    """
    shipped = resources.files("app.tools").joinpath(file_name).read_bytes()
    lists = _read(shipped, file_name, model, form)
    added = None if config_dir is None else config_dir / file_name
    if added is None or not added.exists():
        return lists
    try:
        with added.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError:
        raise ConfigurationError(f"{file_name} cannot be read") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{file_name} is too large")
    more = _read(data, file_name, model, form)
    return {name: words | more[name] for name, words in lists.items()}


def _read(
    data: bytes, file_name: str, model: type[BaseModel], form: str
) -> dict[str, frozenset[str]]:
    try:
        read = model.model_validate(tomllib.loads(data.decode()))
    except (ValidationError, ValueError):
        raise ConfigurationError(f"{file_name} may hold only lists of text: {form}") from None
    return {name: frozenset(words) for name, words in read.model_dump().items()}
