"""The pure rooms compute; time, randomness, files and sockets come in as arguments, if at all."""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source_tree import names, parsed, python_files, relative, within

PURE_ROOMS = ("app/domain", "app/transparency", "app/ledger", "app/privacy", "app/policy")

# Dotted name -> why it has no place in a pure room. A module's name bans all that is in it.
BANNED = {
    "time": "a clock",
    "datetime.datetime.now": "a clock",
    "datetime.datetime.utcnow": "a clock",
    "datetime.datetime.today": "a clock",
    "datetime.date.today": "a clock",
    "random": "randomness",
    "secrets": "randomness",
    "uuid.uuid1": "randomness",
    "uuid.uuid4": "randomness",
    "uuid.uuid6": "randomness",
    "uuid.uuid7": "randomness",
    "uuid.getnode": "the machine",
    "cryptography.hazmat.primitives.ciphers.aead.AESGCM.generate_key": "randomness",
    "cryptography.hazmat.primitives.asymmetric.ed25519.Ed25519PrivateKey.generate": "randomness",
    "os": "files, the environment, randomness",
    "platform": "the machine",
    "io.open": "files",
    "builtins.open": "files",
    "pathlib.Path": "files; PurePath only computes",
    "shutil": "files",
    "tempfile": "files",
    "socket": "the network",
    "ssl": "the network",
    "http": "the network",
    "urllib.request": "the network",
    "asyncio.open_connection": "the network",
    "asyncio.start_server": "the network",
    "subprocess": "programs",
    "multiprocessing": "programs",
    "ctypes": "whatever it likes",
    "builtins.input": "a terminal",
    "builtins.print": "a terminal",
    "builtins.eval": "whatever it likes",
    "builtins.exec": "whatever it likes",
}


def impurities(place: str, tree: ast.AST) -> Iterator[str]:
    """Every banned name that the tree uses or imports."""
    for use in names(tree):
        for banned, why in BANNED.items():
            if within(use.name, banned):
                yield f"{place}:{use.line} {use.name} ({why})"


def test_the_pure_rooms_reach_for_nothing() -> None:
    for room in PURE_ROOMS:
        assert len(python_files(room)) > 1, room
    found = {
        told
        for file in python_files(*PURE_ROOMS)
        for told in impurities(relative(file), parsed(file))
    }
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.monotonic()",
        "from time import time_ns",
        "import datetime\ndatetime.datetime.now(datetime.UTC)",
        "from datetime import datetime, UTC\ndatetime.now(UTC)",
        "from datetime import datetime as moment\nread = moment.now",
        "import os\nos.urandom(16)",
        "from os import urandom as entropy",
        "import secrets",
        "from uuid import uuid4",
        "import uuid\nuuid.uuid4()",
        "open('a')",
        "from pathlib import Path",
        "import socket",
        "import urllib.request",
        "def late():\n    import random",
        (
            "from cryptography.hazmat.primitives.ciphers import aead\n"
            "aead.AESGCM.generate_key(bit_length=256)"
        ),
    ],
)
def test_an_impurity_is_seen_however_it_is_spelled(source: str) -> None:
    assert list(impurities("app/policy/gate.py", ast.parse(source)))


def test_words_of_time_and_identity_are_allowed() -> None:
    source = (
        "secrets = open_ = 1\nsecrets + open_\n"
        "from datetime import datetime, UTC\nfrom uuid import UUID\ndatetime.fromtimestamp(0, UTC)"
    )
    assert list(impurities("app/policy/gate.py", ast.parse(source))) == []
