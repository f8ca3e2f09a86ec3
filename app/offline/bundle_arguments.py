"""The words of `verify-bundle`, without what verifying needs, so that help costs nothing.

Threat: Ledger tampering
"""

import argparse
from pathlib import Path
from typing import NoReturn

DESCRIPTION = (
    "Exit code: 0 all of it holds and is witnessed, 2 it holds as far as it goes, 3 something does "
    "not hold, 4 the input cannot be used. Without --policy never 0."
)
WRONG_WORDS = 4
_MOST_DIGITS = 18


class BundleParser(argparse.ArgumentParser):
    """Exits with 4 for words it does not know: 2 is a verdict here."""

    def error(self, message: str) -> NoReturn:
        """Say what was not understood and leave."""
        self.exit(WRONG_WORDS, f"{self.format_usage()}{self.prog}: {message}\n")


def bundle_parser() -> argparse.ArgumentParser:
    """The parser of the program by itself."""
    parser = BundleParser(prog="verify-bundle", description=DESCRIPTION, allow_abbrev=False)
    add_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the exported file")
    parser.add_argument(
        "--policy", type=Path, metavar="P", help="logs, witnesses and keys you trust (tlog-policy)"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--now",
        type=_seconds,
        metavar="SECONDS",
        help="the time to judge cosignatures by, in POSIX seconds; later ones do not count "
        "(default: the clock with --max-age-seconds, else no time)",
    )
    parser.add_argument(
        "--max-age-seconds",
        type=_seconds,
        metavar="N",
        help="how long ago the witnesses may have seen it for an answer of 0",
    )


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise argparse.ArgumentTypeError("must be a whole number of seconds")
    return int(text)
