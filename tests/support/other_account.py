"""`meshflow` as another user: loaded by root, which then gives its rights up for good.

A witness belongs to somebody else. Where root runs the tests, it can be another user in earnest:
its key and its memory are in a directory of mode 0700 that this user owns. The program is loaded
first, because an interpreter in root's home is out of the other user's reach.

Threat: Ledger tampering
"""

import importlib
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from app.cli.entry import main
from app.embedded.server_account import choose_server_account

# Below "nobody", where distributions give nobody a number.
_NEIGHBOURS = range(65_533, 65_500, -1)
_LOADED = (
    "anyio._backends._asyncio",
    "app.cli.http_client",
    "app.cli.web_server",
    "app.cli.witness_command",
    "app.sandbox.runner_assembly",
    "app.witness.witness_app",
    "encodings.idna",
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.h11_impl",
)


def other_account() -> int | None:
    """A user number that is neither root's nor the database's; None where only root could be it."""
    if os.geteuid() != 0:
        return None
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {choose_server_account().uid}
    return next(number for number in _NEIGHBOURS if number not in taken)


def command(account: int) -> tuple[str, ...]:
    """What starts `meshflow` as that user; to be run in the root of the tree."""
    return (sys.executable, "-m", "tests.support.other_account", str(account))


@contextmanager
def own_directory(account: int | None) -> Iterator[Path]:
    """A directory that its user alone can enter; gone when the block ends."""
    base = Path("/var/lib") if account is not None else None
    made = Path(mkdtemp(prefix="mf-witness-", dir=base))
    try:
        hand_over(made, account)
        yield made
    finally:
        rmtree(made)


def hand_over(directory: Path, account: int | None) -> None:
    """Give a directory and all that is in it to the user, and to nobody else."""
    if account is None:
        return
    for found in (directory, *directory.rglob("*")):
        os.chown(found, account, account)
        found.chmod(0o700 if found.is_dir() else 0o600)


def _become(account: int) -> None:
    for name in _LOADED:
        importlib.import_module(name)
    os.setgroups([])
    os.setresgid(account, account, account)
    os.setresuid(account, account, account)
    os.umask(0o077)


if __name__ == "__main__":
    _become(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
