"""Takes a flooded workspace out of the way at once, and apart when there is time.

Taking twenty thousand directories apart can take a busy disk many seconds, a rename none. What was
taken aside lies where no worker and no tool can reach it, under the names of its tenant and run.

Threat: Privilege escalation via tool calls
"""

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from app.sandbox.held_files import closing
from app.sandbox.openat2 import HOLD_DIRECTORY, Opener
from app.sandbox.workspace_quota import wipe

PLACE: Final = "set-aside"
_NAME: Final = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{32}\.[0-9a-f]{32}", re.ASCII)


class SetAside:
    """Blocking; safe to use from several threads. Holds one descriptor until `close`."""

    def __init__(self, root: int, *, opener: Opener, token_hex: Callable[[int], str]) -> None:
        """`root`, of all workspaces, is only borrowed."""
        self._root = os.dup(root)
        self._opener = opener
        self._token_hex = token_hex
        self._closed = threading.Event()
        self._guard = threading.Lock()  # for the descriptor: its number must not be reused in use
        self._removing = threading.Lock()  # one at a time: a disk is not faster for being asked

    def take(self, tenant_hex: str, run_hex: str, flooded: int) -> Callable[[], None] | None:
        """Take a run's directory away and give what takes it apart; the name is free then.

        None when `flooded` is no longer the one of that name: somebody else was here. OSError.
        """
        with closing(self._held()) as root, closing(self._place(root)) as place:
            tenant = self._opener(root, (tenant_hex,), HOLD_DIRECTORY, 0)
            with closing(tenant):
                stands = os.stat(run_hex, dir_fd=tenant, follow_symlinks=False)
                if not os.path.samestat(stands, os.fstat(flooded)):
                    return None
                name = f"{tenant_hex}.{run_hex}.{self._token_hex(16)}"
                os.rename(run_hex, name, src_dir_fd=tenant, dst_dir_fd=place)
        return lambda: self._remove(name)

    def remove_all(self) -> None:
        """Take apart what processes that died left behind. OSError when it cannot be."""
        with closing(self._held()) as root, closing(self._place(root)) as place:
            flags = os.O_RDONLY | os.O_DIRECTORY
            with closing(self._opener(place, (), flags, 0)) as opened:
                names = os.listdir(opened)  # noqa: PTH208 - through a descriptor
        for name in sorted(names):
            if _NAME.fullmatch(name) is not None:
                self._remove(name)

    def close(self) -> None:
        """Let go; whatever is being taken apart is left as it is. May be called again."""
        self._closed.set()
        with self._guard:
            if self._root >= 0:
                os.close(self._root)
                self._root = -1

    def _held(self) -> int:
        with self._guard:
            return os.dup(self._root)

    def _place(self, root: int) -> int:
        with suppress(FileExistsError):
            os.mkdir(PLACE, 0o700, dir_fd=root)
        return self._opener(root, (PLACE,), HOLD_DIRECTORY, 0)

    def _remove(self, name: str) -> None:
        """Not when this was closed meanwhile, and what another process removed is removed."""
        with self._removing:
            if self._closed.is_set():
                return
            with (
                closing(self._held()) as root,
                closing(self._place(root)) as place,
                suppress(FileNotFoundError),
            ):
                with closing(self._opener(place, (name,), HOLD_DIRECTORY, 0)) as left:
                    wipe(left, is_over=self._closed.is_set)
                if not self._closed.is_set():
                    os.rmdir(name, dir_fd=place)
