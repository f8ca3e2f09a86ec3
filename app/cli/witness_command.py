"""`meshflow witness`: makes a witness's key, serves it, and prints what it refused.

Threat: Ledger tampering
"""

import functools
import logging
import secrets
import sys
import time
from argparse import Namespace
from contextlib import closing
from datetime import UTC, datetime

from app.cli.invocation import OK, Invocation, complain
from app.cli.listening import bound, shown_url
from app.cli.tls_pair import load_tls_pair
from app.witness.known_logs import KnownLogs
from app.witness.witness_key import cosigned_checkpoint, make_key_file, read_key_file
from app.witness.witness_state import open_state, read_state

# A witness hears from a few logs, each once in seconds; more at once is not a log.
MOST_CONNECTIONS = 128
_SEED_BYTES = 32


def witness(invocation: Invocation, arguments: Namespace) -> int:
    """The three actions. ConfigurationError for a key or a state that cannot be trusted."""
    match arguments.action:
        case "keygen":
            key = make_key_file(
                arguments.key_file, arguments.name, secrets.token_bytes(_SEED_BYTES)
            )
            print(key.verifier.encode())
            return OK
        case "evidence":
            return _print_evidence(arguments)
        case _:
            return _serve(invocation, arguments)


def _serve(invocation: Invocation, arguments: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    _configure_logging()
    logs = KnownLogs(arguments.log)
    key = read_key_file(arguments.key_file)
    vkey = key.verifier.encode()
    tls = load_tls_pair(arguments.tls_cert, arguments.tls_key)
    host: str = arguments.host
    must_stay = tls is None and not arguments.behind_tls_proxy
    state = open_state(
        arguments.state,
        vkey,
        functools.partial(cosigned_checkpoint, key=key),
        must_exist=arguments.require_state,
    )
    with closing(state), bound(host, arguments.port, must_stay=must_stay) as listener:
        url = shown_url(listener, host, is_tls=tls is not None)
        if invocation.uid == 0:
            complain("warning: running as root; an own user is safer")

        from app.cli.web_server import WebServer
        from app.witness.witness_app import WitnessApp

        server = WebServer(
            listener=listener,
            tls=tls,
            trusted_proxies=(),
            drain_seconds=0.0,
            on_ready=lambda: _greet(url, vkey),
            most_connections=MOST_CONNECTIONS,
        )
        return server.run(WitnessApp(key, logs, state, _posix_seconds))


def _greet(url: str, vkey: str) -> None:
    sys.stdout.write(f"witness on  {url}\nverifier    {vkey}\n")
    sys.stdout.flush()


def _posix_seconds() -> int:
    return int(time.time())


def _print_evidence(arguments: Namespace) -> int:
    """Every refused note beside the cosigned one, as signed: a stranger can check both."""
    from app.cli.http_client import plain

    with closing(read_state(arguments.state)) as state:
        found = state.evidence()
    for item in found:
        at = datetime.fromtimestamp(item.refused_at, UTC).isoformat()
        print(f"== {item.kind} {at}\n-- refused")
        print(plain(item.note.decode("utf-8", "replace")), end="")
        print("-- cosigned")
        print(plain(item.cosigned.decode("utf-8", "replace")), end="")
    print(f"{len(found)} refused")
    return OK


def _configure_logging() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
