"""The words of the command line. No secret is among them: any user can read those of others."""

import argparse
from pathlib import Path
from typing import NoReturn

import app
from app.cli.policy_arguments import add_policy_arguments
from app.offline import bundle_arguments

DEFAULT_URL = "http://127.0.0.1:8080"
WITNESS_PORT = 8090
_LAST_PORT = 65_535


class _Parser(argparse.ArgumentParser):
    """A parser whose exit code for words it does not know a command can change."""

    usage_exit = 2

    def error(self, message: str) -> NoReturn:
        """Say what was not understood and leave."""
        self.exit(self.usage_exit, f"{self.format_usage()}{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    parser = _Parser(
        prog="meshflow",
        description="The service between untrusted tasks and language models.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"meshflow {app.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_clients(commands)
    _add_administration(commands)
    _add_erasing(commands)
    _add_witness(commands)
    _add_ledger(commands)
    _add_audit(commands)
    _add_doctor(commands)
    commands.add_parser(
        "demo",
        help="run the main job end to end in a scratch directory, and say what held",
        allow_abbrev=False,
    )
    return parser


_Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse gives the type no public name


def _add_serve(commands: "_Commands[_Parser]") -> None:
    serve = commands.add_parser("serve", help="serve the HTTP API", allow_abbrev=False)
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=_port, help="default: 8443 with TLS, 8080 without")
    commands.add_parser(
        "worker",
        help="drive runs and serve nobody, beside any number of others",
        allow_abbrev=False,
    )
    _add_tls(serve)
    serve.add_argument(
        "--trusted-proxy",
        action="append",
        metavar="ADDRESS",
        help="address or network whose X-Forwarded-* headers are believed, with "
        "--behind-tls-proxy (repeatable; default: this machine)",
    )
    serve.add_argument(
        "--dev",
        action="store_true",
        help="development: makes and prints two keys when none are set",
    )


def _add_tls(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    command.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    command.add_argument(
        "--behind-tls-proxy",
        action="store_true",
        help="a proxy in front does TLS: plain HTTP may leave this machine's loopback",
    )


def _add_clients(commands: "_Commands[_Parser]") -> None:
    run = commands.add_parser(
        "run", help="send a task to a server and follow it", allow_abbrev=False
    )
    run.add_argument("task", help="the task, in words")
    run.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="follow the run to its end (default) or print its id and leave",
    )
    verify = commands.add_parser(
        "verify",
        help="have a server verify a run's ledger",
        description="Exit code: 0 valid, 3 broken, 4 not found or not verifiable.",
        allow_abbrev=False,
    )
    verify.add_argument("run", metavar="RUN", help="the run's id, run_...")
    export = commands.add_parser(
        "export",
        help="fetch a run with all that proves it, for verify-bundle",
        description="Exit code: 0 written, 3 the run does not verify, 4 not found or not written.",
        allow_abbrev=False,
    )
    export.add_argument("run", metavar="RUN", help="the run's id, run_...")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    export.add_argument(
        "--fields",
        choices=("all", "none"),
        default="all",
        help="none: without the contents (default: all)",
    )
    bundle = commands.add_parser(
        "verify-bundle",
        help="verify an exported run, offline",
        description=bundle_arguments.DESCRIPTION,
        allow_abbrev=False,
    )
    bundle.usage_exit = bundle_arguments.WRONG_WORDS
    bundle_arguments.add_arguments(bundle)
    policy = commands.add_parser(
        "policy", help="write, try and activate policies", allow_abbrev=False
    )
    for command in (run, verify, export, *add_policy_arguments(policy)):
        command.add_argument("--url", default=DEFAULT_URL, help=f"default: {DEFAULT_URL}")
        command.add_argument(
            "--key-file",
            type=Path,
            metavar="FILE",
            help="file with the API key (default: the file named by MESHFLOW_KEY_FILE, else asked "
            "for on the terminal, else the first line of standard input)",
        )
        command.add_argument(
            "--ca-file",
            type=Path,
            metavar="FILE",
            help="certificates to trust instead of the system's, PEM",
        )


def _add_administration(commands: "_Commands[_Parser]") -> None:
    keys = commands.add_parser("keys", help="make API keys", allow_abbrev=False)
    of_keys = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = of_keys.add_parser(
        "new", help="print a new key and the item for MESHFLOW_API_KEYS", allow_abbrev=False
    )
    new.add_argument("--tenant", help="default: the tenant 'default'")
    new.add_argument("--scopes", metavar="A+B", help="default: all")
    db = commands.add_parser("db", help="the database's schema", allow_abbrev=False)
    of_db = db.add_subparsers(dest="action", required=True, metavar="ACTION")
    of_db.add_parser("upgrade", help="migrate to the newest revision", allow_abbrev=False)
    of_db.add_parser("current", help="print the revision the database is at", allow_abbrev=False)
    openapi = commands.add_parser("openapi", help="the API's description", allow_abbrev=False)
    openapi.add_argument("--webhooks", action="store_true", help="of what webhooks send")
    how = openapi.add_mutually_exclusive_group()
    how.add_argument("--check", type=Path, metavar="PATH", help="exit 1 if PATH differs")
    how.add_argument("--write", type=Path, metavar="PATH", help="write it to PATH")
    commands.add_parser(
        "config", help="print the settings in effect, without secrets", allow_abbrev=False
    )


def _add_erasing(commands: "_Commands[_Parser]") -> None:
    erase = commands.add_parser(
        "erase", help="erase content lawfully, now, and print the receipt", allow_abbrev=False
    )
    actions = erase.add_subparsers(dest="action", required=True, metavar="ACTION")
    anonymize = actions.add_parser(
        "anonymize-run", help="take content of a run away", allow_abbrev=False
    )
    anonymize.add_argument(
        "--field", action="append", help="only this field (repeatable; default: all content)"
    )
    delete_run = actions.add_parser(
        "delete-run", help="leave the hashes of a run's records only", allow_abbrev=False
    )
    delete_tenant = actions.add_parser(
        "delete-tenant", help="leave nothing of a tenant", allow_abbrev=False
    )
    for command in (anonymize, delete_run):
        command.add_argument("run", metavar="RUN", help="the run's id, run_...")
    for command in (anonymize, delete_run, delete_tenant):
        command.add_argument("--tenant", required=True, help="the tenant's name")
        command.add_argument("--legal-basis", required=True, metavar="CODE")
        command.add_argument(
            "--request-ref", required=True, help="reference of the request; kept as a salted hash"
        )
        command.add_argument(
            "--force",
            action="store_true",
            help="even if the run does not verify: needs the owner's login, and is recorded",
        )
        command.add_argument(
            "--rotate", action="store_true", help="end the old keys now and not at night"
        )
    eraser = commands.add_parser(
        "eraser", help="execute requests to erase, until stopped", allow_abbrev=False
    )
    eraser.add_argument(
        "--replay", action="store_true", help="first erase again what a restored backup brought"
    )
    eraser.add_argument("--once", action="store_true", help="look once, end old keys, and leave")


def _add_witness(commands: "_Commands[_Parser]") -> None:
    witness = commands.add_parser(
        "witness",
        help="cosign the checkpoints of somebody else's log",
        description="Runs apart from the service it watches: another account, another disk.",
        allow_abbrev=False,
    )
    of_witness = witness.add_subparsers(dest="action", required=True, metavar="ACTION")
    keygen = of_witness.add_parser(
        "keygen", help="make a key and print its verifier key", allow_abbrev=False
    )
    keygen.add_argument("--name", required=True, help="as in example.com/witness")
    serve = of_witness.add_parser("serve", help="serve add-checkpoint", allow_abbrev=False)
    evidence = of_witness.add_parser(
        "evidence", help="print the signed notes that were refused", allow_abbrev=False
    )
    for command in (keygen, serve):
        command.add_argument("--key-file", type=Path, required=True, metavar="FILE")
    for command in (serve, evidence):
        command.add_argument("--state", type=Path, required=True, metavar="FILE")
    serve.add_argument(
        "--log",
        action="append",
        required=True,
        metavar="VKEY",
        help="a log that is witnessed, by its verifier key (repeatable)",
    )
    serve.add_argument(
        "--require-state",
        action="store_true",
        help="refuse to start without a state file: for every start after the first",
    )
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    serve.add_argument("--port", type=_port, default=WITNESS_PORT, help="default: 8090")
    _add_tls(serve)


def _add_audit(commands: "_Commands[_Parser]") -> None:
    audit = commands.add_parser(
        "audit",
        help="sweep whole logs with rights to read alone, and no content keys",
        description="Exit code: 0 all of it holds, 2 it holds but checkpoints lack their rows, "
        "3 something does not hold, 4 it cannot be looked at.",
        allow_abbrev=False,
    )
    audit.add_argument("--tenant", metavar="NAME", help="one tenant's log and the operator's")
    audit.add_argument(
        "--policy",
        type=Path,
        required=True,
        metavar="FILE",
        help="the keys that the auditor trusts, not obtained from the audited server",
    )
    audit.add_argument(
        "--operator-key",
        type=Path,
        metavar="FILE",
        help="opens the operator log's notes, so that logs are held against the checkpoints in it",
    )
    audit.add_argument("--json", action="store_true", help="the report for machines")


def _add_doctor(commands: "_Commands[_Parser]") -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say what this machine offers, which tools there are, and whether walls hold",
        description="Exit code: 0 all of it holds, 1 something is missing and what needs it is "
        "off, 2 not to be run so: something got out, or off-unsafe. Needs no database, no keys.",
        allow_abbrev=False,
    )
    doctor.add_argument("--json", action="store_true", help="the report for machines")
    doctor.add_argument(
        "--accept-missing",
        action="store_true",
        help="0 instead of 1: for a startup probe where the machine is known to lack something",
    )


def _add_ledger(commands: "_Commands[_Parser]") -> None:
    commands.add_parser(
        "sequencer",
        help="put records into their logs, sign and anchor them, without serving",
        allow_abbrev=False,
    )
    ledger = commands.add_parser("ledger", help="the logs of this deployment", allow_abbrev=False)
    of_ledger = ledger.add_subparsers(dest="action", required=True, metavar="ACTION")
    of_ledger.add_parser(
        "keys", help="print the public keys that witnesses and verifiers need", allow_abbrev=False
    )
    rotate = of_ledger.add_parser(
        "rotate-key", help="make the next key; the old one counts no further", allow_abbrev=False
    )
    rotate.add_argument(
        "role",
        choices=("log", "enrolment", "erasure"),
        help="which key; for `enrolment` no other process of the deployment may be there",
    )
    operator_key = of_ledger.add_parser(
        "operator-key",
        help="write the key of the operator log's notes to a file, for an auditor",
        allow_abbrev=False,
    )
    operator_key.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    recover = of_ledger.add_parser(
        "recover",
        help="go on after a loss, under new names",
        description="Needs the owner's login. The loss is recorded for good.",
        allow_abbrev=False,
    )
    recover.add_argument(
        "--lost",
        required=True,
        type=_loss,
        metavar="N",
        help="how many records of the operator log are lost, as the anchors say, or `unknown`",
    )


def _loss(text: str) -> str:
    if text != "unknown" and not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError("must be a whole number or `unknown`")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= _LAST_PORT):
        raise argparse.ArgumentTypeError("must be a whole number from 0 to 65535")
    return int(text)
