"""`meshflow verify-bundle`: reads a bundle and a policy, says what holds, and exits with that.

Needs the standard library and `cryptography`; opens no connection and writes no file.

Threat: Ledger tampering
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from app.offline.bundle_arguments import bundle_parser
from app.offline.bundle_reader import LARGEST_BUNDLE
from app.offline.offline_policy import LONGEST_POLICY, parse_policy
from app.offline.offline_report import Finding, Report, Result
from app.offline.offline_verdict import Freshness, verify_bundle
from app.offline.strict_json import UnusableError


def main(argv: Sequence[str] | None = None) -> int:
    """Verify one bundle; the exit code is the verdict. Words it does not know exit with 4."""
    return run(bundle_parser().parse_args(argv))


def run(arguments: argparse.Namespace) -> int:
    """Verify the bundle that the arguments name and print the report."""
    freshness = _freshness(arguments.now, arguments.max_age_seconds)
    report = report_on(arguments.bundle, arguments.policy, freshness)
    if arguments.json:
        sys.stdout.write(json.dumps(report.as_json(), indent=1, sort_keys=True) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(report)) + "\n")
    return int(report.result)


def _freshness(now: int | None, max_age: int | None) -> Freshness | None:
    if now is None and max_age is None:
        return None
    return Freshness(now=int(time.time()) if now is None else now, max_age=max_age)


def report_on(bundle: Path, policy: Path | None, freshness: Freshness | None) -> Report:
    """The report on a file; one that cannot be used is a report too. Raises nothing."""
    try:
        pinned = None if policy is None else parse_policy(_read(policy, LONGEST_POLICY))
        return verify_bundle(_read(bundle, LARGEST_BUNDLE), pinned, freshness)
    except UnusableError as error:
        reason = str(error)
    except MemoryError:
        reason = "there is not enough memory for this file"
    except Exception as error:  # noqa: BLE001 - whatever a hostile file brings about, never 0 or 2
        reason = f"verifying failed: {type(error).__name__}"
    finding = Finding(where="input", seq=None, reason=reason)
    return Report(result=Result.UNUSABLE, findings=[finding])


def _read(path: Path, largest: int) -> bytes:
    try:
        if not path.is_file():
            raise UnusableError(f"{path} is no file")
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except (OSError, ValueError):
        raise UnusableError(f"{path} cannot be read") from None
    if len(data) > largest:
        raise UnusableError(f"{path} is too large")
    return data


def _lines(report: Report) -> list[str]:
    lines = [
        f"result   {report.result.name.lower()}",
        f"run      {report.run or 'unknown'} in log {report.log or 'unknown'}",
        f"records  {report.records}, witnessed {report.witnessed}",
        "erased   the whole run" if report.deleted else f"erased   in {len(report.erased)} records",
    ]
    if report.witnessed_at is not None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(report.witnessed_at, 2**37)))
        lines.append(f"seen     {moment} by the policy's witnesses")
    if report.unwitnessed_since is not None:
        lines.append(f"unseen   since {report.unwitnessed_since}")
    for found in report.findings:
        place = found.where if found.seq is None else f"{found.where} seq {found.seq}"
        lines.append(f"finding  {place}: {_plain(found.reason)}")
    for title, said in (
        ("This shows:", report.proves()),
        ("This does not show:", report.does_not_prove()),
    ):
        if said:
            lines += ["", title, *(f"  - {_plain(sentence)}" for sentence in said)]
    return lines


def _plain(text: str) -> str:
    """What a hostile file says, without what a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


if __name__ == "__main__":
    sys.exit(main())
