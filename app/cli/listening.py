"""Binds the socket of a server: plain HTTP leaves this machine only when a proxy in front does TLS.

Threat: Plain HTTP exposure
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.cli.invocation import FAILED, CommandError
from app.domain.errors import ConfigurationError
from app.domain.loopback import is_loopback
from app.telemetry.operations_settings import OperationsSettings

# A peer that takes nothing of what is sent to it is cut off after so long, by the kernel: it would
# hold what it does not read for as long as it likes.
SLOW_READER_SECONDS = 60.0


def bound(host: str, port: int, *, must_stay: bool) -> socket.socket:
    """A socket that is bound and does not listen yet: nobody is kept waiting by a slow start."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigurationError("--host is not a name or address of this machine") from None
    family, _, _, _, address = found[0]
    if must_stay and not is_loopback(str(address[0])):
        raise ConfigurationError(
            "plain HTTP is served on loopback only: give --tls-cert and --tls-key, or "
            "--behind-tls-proxy when a proxy in front does TLS"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":  # what is accepted inherits it
            milliseconds = round(SLOW_READER_SECONDS * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise CommandError(f"cannot listen on port {port}: {error.strerror}", FAILED) from None
    return listener


@contextmanager
def metrics_listener(operations: OperationsSettings) -> Iterator[socket.socket | None]:
    """The socket on which metrics are told, where somebody wants them. In clear, wherever it is.

    The operator has named the address: by default metrics do not leave this machine.
    """
    if operations.metrics_port is None:
        yield None
        return
    with bound(operations.metrics_host, operations.metrics_port, must_stay=False) as listener:
        yield listener


def tell_metrics_url(listener: socket.socket | None, operations: OperationsSettings) -> None:
    """Say where metrics are told: the port may be one that the system chose."""
    if listener is not None:
        shown = shown_url(listener, operations.metrics_host, is_tls=False)
        sys.stdout.write(f"metrics      {shown}/metrics\n")
        sys.stdout.flush()


def shown_url(listener: socket.socket, host: str, *, is_tls: bool) -> str:
    """The address to tell people: the host as it was given, the port as it was bound."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{shown}:{listener.getsockname()[1]}"
