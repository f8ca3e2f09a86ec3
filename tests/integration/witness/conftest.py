"""One witness process for all statuses, and a log of its own for each test."""

from collections.abc import Callable, Iterator

import httpx2
import pytest

from tests.support.small_log import NoteKey, SmallLog
from tests.support.witness_process import WitnessProcess, new_files, witness_process

_LOGS = [SmallLog(NoteKey(f"logs.test/ledger/{n:02x}")) for n in range(200)]
_SECOND_KEY = NoteKey(_LOGS[0].origin, seed=b"\2" * 32)


@pytest.fixture(scope="session")
def witness() -> Iterator[WitnessProcess]:
    with new_files() as files, witness_process(files, [*_LOGS, SmallLog(_SECOND_KEY)]) as process:
        yield process


@pytest.fixture(scope="session")
def _unused() -> Iterator[SmallLog]:
    return iter(_LOGS[1:])


@pytest.fixture
def log(_unused: Iterator[SmallLog]) -> SmallLog:
    """A log that the witness watches and has not heard of."""
    return next(_unused)


@pytest.fixture(scope="session")
def rotated() -> tuple[NoteKey, NoteKey]:
    """Two keys that the witness knows under one name."""
    return _LOGS[0].key, _SECOND_KEY


@pytest.fixture(scope="session")
def http(witness: WitnessProcess) -> Iterator[httpx2.Client]:
    with witness.client() as client:
        yield client


@pytest.fixture
def add(http: httpx2.Client) -> Callable[[bytes], httpx2.Response]:
    return lambda body: http.post("/add-checkpoint", content=body)
