"""`meshflow verify`: asks a server to verify a run's ledger and says what the answer means.

Threat: Ledger tampering
"""

from argparse import Namespace
from http import HTTPStatus

from app.cli.http_client import ProblemError, api_client, plain, text_of
from app.cli.invocation import OK, USAGE, CommandError, Invocation
from app.domain.run import JsonObject, parse_run_id

BROKEN = 3
UNUSABLE = 4


def verify_run(invocation: Invocation, arguments: Namespace) -> int:
    """0 valid, 3 broken, 4 not found or not verifiable. Never 0 without an explicit `valid`."""
    run_id: str = arguments.run
    if parse_run_id(run_id) is None:
        raise CommandError("RUN must be run_ and 32 hex digits", UNUSABLE)
    try:
        with api_client(invocation, arguments) as api:
            found = api.get(f"/v1/runs/{run_id}/verification")
    except ProblemError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            raise CommandError("no such run for this key", UNUSABLE) from None
        raise CommandError(str(error), UNUSABLE) from None
    except CommandError as error:
        raise CommandError(
            str(error), error.exit_code if error.exit_code == USAGE else UNUSABLE
        ) from None
    if text_of(found, "run_id") != run_id:
        raise CommandError("the server answered for another run", UNUSABLE)
    for line in report_lines(found):
        print(plain(line))
    match text_of(found, "verdict"):
        case "valid":
            return OK
        case "broken":
            return BROKEN
        case _:
            raise CommandError("the server gave no verdict", UNUSABLE)


def report_lines(found: JsonObject) -> list[str]:
    """The verdict, what it rests on, and what it does not show."""
    entries = found.get("entries")
    lines = [
        f"run      {text_of(found, 'run_id')}",
        f"verdict  {text_of(found, 'verdict')}",
        f"entries  {entries if isinstance(entries, int) else 'unknown'}",
        f"head     {text_of(found, 'head') or 'none'}",
    ]
    lines += _unseen(found)
    broken = found.get("break")
    if isinstance(broken, dict):
        lines.append(f"break    at seq {broken.get('seq')}: {text_of(broken, 'reason')}")
    for title, name in (("This shows:", "proves"), ("This does not show:", "does_not_prove")):
        sentences = found.get(name)
        if isinstance(sentences, list) and sentences:
            lines += ["", title, *(f"  - {sentence}" for sentence in sentences)]
    return lines


def _unseen(found: JsonObject) -> list[str]:
    """How many records no witness has seen, and for how long the oldest of them has been there."""
    integrity, age = found.get("integrity"), found.get("unwitnessed_age_seconds")
    count = integrity.get("unwitnessed") if isinstance(integrity, dict) else None
    if text_of(found, "verdict") != "valid" or not isinstance(count, int) or not count:
        return []
    since = f", the oldest for {age} seconds" if isinstance(age, int) else ""
    return [f"unseen   {count} records{since}"]
