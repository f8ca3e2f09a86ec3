"""Says as which user the embedded PostgreSQL runs: the caller, or, for root, one without power.

Threat: Privilege escalation via tool calls
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from app.domain.errors import ConfigurationError

_ACCOUNTS_FOR_ROOT = ("meshflow", "postgres", "nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAccount:
    """The user that owns the data directory and runs the server; never uid 0."""

    name: str
    uid: int
    gid: int
    differs_from_caller: bool

    @property
    def switch_user(self) -> int | None:
        """What subprocess takes as `user`: None when nothing has to change."""
        return self.uid if self.differs_from_caller else None

    @property
    def switch_group(self) -> int | None:
        """What subprocess takes as `group`."""
        return self.gid if self.differs_from_caller else None

    @property
    def switch_groups(self) -> list[int] | None:
        """What subprocess takes as `extra_groups`: none are kept."""
        return [] if self.differs_from_caller else None


def choose_server_account() -> ServerAccount:
    """The calling user, or for root the first of meshflow, postgres and nobody that exists."""
    uid = os.geteuid()
    if uid != 0:
        try:
            own = pwd.getpwuid(uid)
        except KeyError:
            raise ConfigurationError(
                f"user id {uid} has no entry in the user database, which PostgreSQL needs: "
                "set MESHFLOW_DATABASE_URL or run as a named user"
            ) from None
        return ServerAccount(name=own.pw_name, uid=uid, gid=os.getegid(), differs_from_caller=False)
    for name in _ACCOUNTS_FOR_ROOT:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return ServerAccount(
                name=name, uid=entry.pw_uid, gid=entry.pw_gid, differs_from_caller=True
            )
    raise ConfigurationError(
        "PostgreSQL does not run as root, and none of the users "
        f"{', '.join(_ACCOUNTS_FOR_ROOT)} exists: create one, or set MESHFLOW_DATABASE_URL"
    )


def require_reachable(directory: Path, account: ServerAccount) -> None:
    """ConfigurationError when the account cannot enter an existing part of `directory`.

    Only mode bits are read and nothing is changed: opening somebody's home is not ours to decide.
    """
    for part in (*reversed(directory.parents), directory):
        try:
            found = part.stat()
        except FileNotFoundError:
            return
        if not _may_enter(found, account):
            raise ConfigurationError(
                f"{directory} cannot hold the embedded database: the user '{account.name}', as "
                f"which PostgreSQL runs, cannot enter {part}. No permission was changed. Set "
                "MESHFLOW_DATA_DIR to a place it can enter, for example under /var/lib/meshflow"
            )


def _may_enter(found: os.stat_result, account: ServerAccount) -> bool:
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
