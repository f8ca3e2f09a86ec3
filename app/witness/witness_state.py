"""The memory of a witness: the newest checkpoint it cosigned for each origin, and what it refused.

One SQLite file. The comparison with the old size and the new row are one transaction, and a
cosignature leaves only after that transaction is on the disk, inside the row it stands for. So no
cosignature exists that the file does not know, whenever the process ends. A file that is damaged,
or that another key wrote, is refused: a witness that forgot would cosign a fork.

Threat: Ledger tampering
"""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.domain.errors import ConfigurationError
from app.transparency.checkpoint import Checkpoint
from app.transparency.merkle_tree import EMPTY_ROOT, verify_consistency

MOST_EVIDENCE = 64  # for each origin and kind
BUSY_SECONDS = 5.0
_APPLICATION = 0x4D465754
_VERSION = 1
_SCHEMA = """
CREATE TABLE witness (vkey TEXT NOT NULL);
CREATE TABLE latest (
  origin TEXT PRIMARY KEY, size INTEGER NOT NULL CHECK (size >= 0),
  root BLOB NOT NULL CHECK (length(root) = 32), note BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE refused (
  id INTEGER PRIMARY KEY, origin TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('fork', 'unproven')),
  size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL, cosigned BLOB NOT NULL,
  refused_at INTEGER NOT NULL, UNIQUE (origin, kind, size, root));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """The checkpoint is in the memory, for good, and this is the cosignature's line."""

    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """The client's old size is not the size that was cosigned last."""

    size: int


@dataclass(frozen=True, slots=True)
class Forked:
    """Another root of the very size that was cosigned: two histories of one log."""


@dataclass(frozen=True, slots=True)
class Unproven:
    """The consistency proof does not lead from what was cosigned to this checkpoint."""


Outcome = Cosigned | Stale | Forked | Unproven


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A checkpoint that one of the log's keys signed. `note` holds it and good signatures only."""

    checkpoint: Checkpoint
    note: bytes
    old_size: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A refused note, and the cosigned one that it contradicts or was not proven to continue."""

    kind: str
    refused_at: int
    note: bytes
    cosigned: bytes


class WitnessState:
    """Open state of one witness; used by one thread. Other processes may hold the same file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def close(self) -> None:
        """Close the file. Nothing waits to be written."""
        self._db.close()

    def require_format(self) -> None:
        """ConfigurationError unless the file is whole and a witness's."""
        try:
            told = [
                self._db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version", "integrity_check")
            ]
        except sqlite3.Error:
            told = []
        if told != [_APPLICATION, _VERSION, "ok"]:
            raise ConfigurationError("the state file is damaged, or not that of a witness")

    def require_own(self, vkey: str, is_ours: Callable[[bytes], Checkpoint | None]) -> None:
        """ConfigurationError unless every row is what this witness wrote into it."""
        try:
            owners = self._db.execute("SELECT vkey FROM witness").fetchall()
            rows = self._db.execute("SELECT origin, size, root, note FROM latest").fetchall()
        except sqlite3.Error:
            raise ConfigurationError("the state file is damaged") from None
        if owners != [(vkey,)]:
            raise ConfigurationError("the state file belongs to a witness with another key")
        for origin, size, root, note in rows:
            found = is_ours(note) if isinstance(note, bytes) else None
            if found is None or (found.origin, found.size, found.root) != (origin, size, root):
                raise ConfigurationError("the state file is damaged in a row")

    def latest(self, origin: str) -> bytes | None:
        """The newest cosigned note of an origin."""
        row = self._db.execute("SELECT note FROM latest WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else bytes(row[0])

    def evidence(self) -> tuple[Evidence, ...]:
        """Everything that was kept of what was refused, oldest first."""
        rows = self._db.execute(
            "SELECT kind, refused_at, note, cosigned FROM refused ORDER BY id"
        ).fetchall()
        return tuple(
            Evidence(kind=kind, refused_at=at, note=note, cosigned=cosigned)
            for kind, at, note, cosigned in rows
        )

    def decide(self, asked: Candidate, sign: Callable[[], bytes], now: int) -> Outcome:
        """Compare, persist, and only then give the cosignature. sqlite3.Error: nothing was done.

        `sign` is called inside the transaction, so that its line is in the row it stands for.
        """
        with self._transaction():
            return self._decided(asked, sign, now)

    def _decided(self, asked: Candidate, sign: Callable[[], bytes], now: int) -> Outcome:
        found = asked.checkpoint
        row = self._db.execute(
            "SELECT size, root, note FROM latest WHERE origin = ?", (found.origin,)
        ).fetchone()
        size, root, cosigned = (0, EMPTY_ROOT, b"") if row is None else row
        if asked.old_size != size:
            return Stale(size=size)
        if found.size == size and found.root != root:
            self._keep("fork", asked, cosigned, now)
            return Forked()
        if not verify_consistency(
            old_size=size,
            new_size=found.size,
            old_root=root,
            new_root=found.root,
            proof=asked.proof,
        ):
            self._keep("unproven", asked, cosigned, now)
            return Unproven()
        line = sign()
        self._db.execute(
            "INSERT INTO latest (origin, size, root, note) VALUES (?, ?, ?, ?) ON CONFLICT (origin)"
            " DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note",
            (found.origin, found.size, found.root, asked.note + line),
        )
        # Anybody can send an honest note with a wrong proof; once proven it accuses nobody.
        self._db.execute(
            "DELETE FROM refused WHERE kind = 'unproven' AND origin = ? AND size = ? AND root = ?",
            (found.origin, found.size, found.root),
        )
        return Cosigned(line=line)

    def _keep(self, kind: str, asked: Candidate, cosigned: bytes, now: int) -> None:
        """Keep a refused note. The first forks stay for ever, of the unproven the newest do."""
        found = asked.checkpoint
        if kind == "fork":
            (kept,) = self._db.execute(
                "SELECT count(*) FROM refused WHERE origin = ? AND kind = 'fork'", (found.origin,)
            ).fetchone()
            if kept >= MOST_EVIDENCE:
                return
        self._db.execute(
            "INSERT INTO refused (origin, kind, size, root, note, cosigned, refused_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (found.origin, kind, found.size, found.root, asked.note, cosigned, now),
        )
        self._db.execute(
            "DELETE FROM refused WHERE origin = ? AND kind = ? AND id NOT IN"
            " (SELECT id FROM refused WHERE origin = ? AND kind = ? ORDER BY id DESC LIMIT ?)",
            (found.origin, kind, found.origin, kind, MOST_EVIDENCE),
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")  # before the first read: what is read stays true
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise


def open_state(
    path: Path, vkey: str, is_ours: Callable[[bytes], Checkpoint | None], *, must_exist: bool
) -> WitnessState:
    """The state of the witness `vkey`, made when it is not there. ConfigurationError if unsound.

    `is_ours` gives the checkpoint of a note that carries a cosignature of this witness, else None.
    """
    try:
        is_there = path.exists()
    except OSError as error:
        raise ConfigurationError(f"the state file cannot be read: {error.strerror}") from None
    if must_exist and not is_there:
        raise ConfigurationError("there is no state file: a witness that forgot is none")
    if not is_there:
        _create(path, vkey)
    state = _opened(path)
    try:
        state.require_format()
        state.require_own(vkey, is_ours)
    except BaseException:
        state.close()
        raise
    return state


def read_state(path: Path) -> WitnessState:
    """The state for reading, by whoever may read the file. ConfigurationError if it is none."""
    state = _opened(path)
    try:
        state.require_format()
    except BaseException:
        state.close()
        raise
    return state


def _opened(path: Path) -> WitnessState:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigurationError(f"the state file cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError("the state file must be a file that nobody else can write")
    return WitnessState(_connected(path))


def _connected(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"  # an absent file is not made in passing
    try:
        db = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error:
        raise ConfigurationError("the state file cannot be opened") from None
    try:
        # Above FULL: the directory is synced too when the journal that undoes a commit is removed.
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
    except sqlite3.Error:
        db.close()
        raise ConfigurationError("the state file cannot be opened") from None
    return db


def _create(path: Path, vkey: str) -> None:
    """Make the file whole or not at all; of two processes that try, one does."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.unlink(missing_ok=True)  # of a start that was killed under the same number
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_connected(draft)) as db:
            db.executescript(
                f"BEGIN; PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION};"
                f"{_SCHEMA} COMMIT;"
            )
            db.execute("INSERT INTO witness (vkey) VALUES (?)", (vkey,))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
        folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, sqlite3.Error):
        raise ConfigurationError("the state file cannot be made") from None
