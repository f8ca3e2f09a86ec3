"""Looks a host name up once: all addresses of it, in threads that nothing else waits for.

Threat: Exfiltration via web/shell tools
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from app.egress.faults import Fault, refused
from app.egress.public_address import Address, address_of

_THREADS = 8


class NameResolver(Protocol):
    """Whoever turns a name into addresses."""

    async def addresses(self, host: str) -> Sequence[Address]:
        """Every address of the name, from one lookup. EgressError when there is none."""

    def close(self) -> None:
        """Take no further name."""


class SystemResolver:
    """The resolver of the machine, asked for the name as it stands and never with a search list.

    A lookup cannot be interrupted, so one that hangs keeps its thread: they are the resolver's own,
    and a tool that only wants a file does not wait behind them.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="meshflow-dns")

    async def addresses(self, host: str) -> Sequence[Address]:
        """As promised by `NameResolver`."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, _looked_up, host
            )
        except (OSError, UnicodeError, RuntimeError):
            raise refused(Fault.UNKNOWN) from None
        addresses = [address_of(text) for text in found]
        known = [address for address in addresses if address is not None]
        if not known or len(known) != len(addresses):
            raise refused(Fault.UNKNOWN)
        return known

    def close(self) -> None:
        """As promised by `NameResolver`; a lookup under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _looked_up(host: str) -> list[str]:
    # With the dot the name is whole: `example.com` is not first tried as one of this cluster's.
    found = socket.getaddrinfo(f"{host}.", None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))
