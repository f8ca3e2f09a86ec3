"""The console script: reads the command line and hands over to one command.

Nothing heavy is imported here, so `meshflow --help` answers at once. This is the only place in the
program that reads the environment.

Threat: Unauthorised API access
"""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from app.cli.arguments import build_parser
from app.cli.invocation import (
    FAILED,
    STOPPED,
    USAGE,
    CommandError,
    Invocation,
    complain,
    this_invocation,
)
from app.domain.errors import ConfigurationError, MeshFlowError

Command = Callable[[Invocation, Namespace], int]
_INTERRUPTED = 130
_HOLDS_KEYS = frozenset(
    {"serve", "worker", "sequencer", "eraser", "witness", "erase", "demo", "doctor"}
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. 0 is success, 2 a usage or configuration error; others say their own."""
    # From the start, or process 1 of a container would not hear it while the database starts.
    signal.signal(signal.SIGTERM, _leave)
    given = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(given)
    if arguments.command in _HOLDS_KEYS:
        from app.sandbox.runner_assembly import close_process_to_peers

        close_process_to_peers()  # before the environment is read
    invocation = this_invocation(dict(os.environ))  # noqa: TID251 - the one place that reads it
    try:
        return COMMANDS[arguments.command](invocation, arguments)
    except CommandError as error:
        complain(str(error))
        return error.exit_code
    except ConfigurationError as error:
        complain(str(error))
        return USAGE
    except MeshFlowError as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; say nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(STOPPED)  # so that whatever was begun is undone on the way out


def _serve(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.serve import serve

    return serve(invocation, arguments)


def _worker(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.worker_command import worker

    return worker(invocation, arguments)


def _run(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.run_command import run_task

    return run_task(invocation, arguments)


def _policy(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.policy_command import policy

    return policy(invocation, arguments)


def _verify(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.verify_command import verify_run

    return verify_run(invocation, arguments)


def _export(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.export_command import export_run

    return export_run(invocation, arguments)


def _verify_bundle(_invocation: Invocation, arguments: Namespace) -> int:
    from app.offline.verify_bundle_main import run

    return run(arguments)


def _keys(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.admin_commands import make_key

    return make_key(invocation, arguments)


def _db(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.admin_commands import migrate_database

    return migrate_database(invocation, arguments)


def _openapi(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.admin_commands import print_openapi

    return print_openapi(invocation, arguments)


def _config(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.admin_commands import print_config

    return print_config(invocation, arguments)


def _erase(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.erase_commands import erase

    return erase(invocation, arguments)


def _eraser(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.erase_commands import eraser

    return eraser(invocation, arguments)


def _witness(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.witness_command import witness

    return witness(invocation, arguments)


def _demo(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.demo import demo

    return demo(invocation, arguments)


def _doctor(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.doctor_command import doctor

    return doctor(invocation, arguments)


def _audit(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.audit_command import audit

    return audit(invocation, arguments)


def _sequencer(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.ledger_command import sequencer

    return sequencer(invocation, arguments)


def _ledger(invocation: Invocation, arguments: Namespace) -> int:
    from app.cli.ledger_command import ledger

    return ledger(invocation, arguments)


COMMANDS: Mapping[str, Command] = {
    "serve": _serve,
    "worker": _worker,
    "run": _run,
    "policy": _policy,
    "verify": _verify,
    "export": _export,
    "verify-bundle": _verify_bundle,
    "keys": _keys,
    "db": _db,
    "openapi": _openapi,
    "config": _config,
    "erase": _erase,
    "eraser": _eraser,
    "witness": _witness,
    "sequencer": _sequencer,
    "ledger": _ledger,
    "audit": _audit,
    "demo": _demo,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
