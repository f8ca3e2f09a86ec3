"""`meshflow audit`: sweeps the logs of a deployment with rights to read alone and keys of its own.

Threat: Ledger tampering
"""

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from app.audit.sweep import Pins, Sweep
from app.audit.sweep_report import LogReport
from app.cli.database_setup import driver_url
from app.cli.invocation import OK, CommandError, Invocation
from app.domain.errors import ConfigurationError, MeshFlowError
from app.keys.operator_key import OperatorKey, read_operator_key
from app.storage.database import Database
from app.transparency.witness_policy import WitnessPolicyError, parse_policy

INCOMPLETE = 2
BROKEN = 3
UNUSABLE = 4
_RESULTS = {OK: "clean", INCOMPLETE: "incomplete", BROKEN: "tampered"}
_WIDTH = 30


def audit(invocation: Invocation, arguments: Namespace) -> int:
    """0 all of it holds, 2 checkpoints lack rows, 3 something does not hold, 4 not looked at."""
    settings = invocation.settings(dev=False)
    try:
        if settings.audit_database_url is None:
            raise ConfigurationError("an audit needs MESHFLOW_AUDIT_DATABASE_URL")
        pins = _pins(arguments.policy)
        database = Database(driver_url(settings.audit_database_url), pool_size=1)
        file = arguments.operator_key
        key = None if file is None else read_operator_key(file)
        reports = asyncio.run(_swept(database, pins, key, arguments.tenant))
    except MeshFlowError as error:
        raise CommandError(str(error), UNUSABLE) from None
    if arguments.tenant is not None and all(item.tenant != arguments.tenant for item in reports):
        raise CommandError("no such tenant", UNUSABLE)
    holds = not any(report.broken for report in reports)
    is_whole = all(report.is_whole for report in reports)
    code = BROKEN if not holds else OK if is_whole else INCOMPLETE
    if arguments.json:
        logs = [report.as_json() for report in reports]
        told = {"result": _RESULTS[code], "notes": key is not None, "logs": logs}
        print(json.dumps(told))
    else:
        _tell(reports)
        if key is None:
            print("The operator log's notes were not opened: see --operator-key.")
    return code


def _pins(path: Path) -> Pins:
    try:
        return Pins.of(parse_policy(path.read_bytes()))
    except OSError as error:
        raise ConfigurationError(f"the policy cannot be read: {error.strerror}") from None
    except WitnessPolicyError as error:
        raise ConfigurationError(f"the policy is malformed: {error}") from None


async def _swept(
    database: Database, pins: Pins, key: OperatorKey | None, tenant: str | None
) -> list[LogReport]:
    try:
        return await Sweep(database, pins, _progress, key).run(tenant)
    finally:
        await database.close()
        _progress("", 0, 0)


def _progress(what: str, done: int, total: int) -> None:
    """A bar on a terminal; nothing anywhere else."""
    if not sys.stderr.isatty():
        return
    if not what:
        sys.stderr.write("\r" + " " * (_WIDTH + 40) + "\r")
    else:
        filled = _WIDTH if done >= total else _WIDTH * done // total
        bar = "#" * filled + "." * (_WIDTH - filled)
        sys.stderr.write(f"\r{what:8} [{bar}] {done}")
    sys.stderr.flush()


def _tell(reports: Sequence[LogReport]) -> None:
    for report in reports:
        print(
            f"{report.tenant}: {report.records} records of {report.runs} runs,"
            f" {report.leaves} leaves, {report.tiles} tiles, {report.checkpoints} checkpoints,"
            f" {report.batches} batches: {report.broken or 'nothing'} broken"
        )
        if report.erased:
            print(f"  {report.erased} parts are gone; the statements about them are sealed")
        if report.unstored:
            print(
                f"  {report.unstored} checkpoints of the operator log have no row; the log has them"
            )
        if report.unnamed:
            print(f"  {report.unnamed} records of checkpoints have no row; what they say is sealed")
        for change in report.schema:
            by = change.product or "a version that is not told"
            print(f"  schema {change.before or 'none'} -> {change.after}, {change.at}, by {by}")
        for item in report.findings:
            run = "" if item.run is None else f" run_{item.run.hex()}"
            seq = "" if item.seq is None else f" seq {item.seq}"
            print(f"  {item.where}{run}{seq}: {item.reason}")
        if report.broken > len(report.findings):
            print(f"  and {report.broken - len(report.findings)} more")
