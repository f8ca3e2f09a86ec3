"""What `meshflow --help` costs in CPU, beside the interpreter that starts and does nothing."""

import resource
import statistics
import subprocess
import sys

from bench.paired import report

ROUNDS = 15


def cpu_ms(*words: str) -> float:
    """User and system time of one child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-P", *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent * 1000


def main() -> None:
    pairs = [(cpu_ms("-c", "pass"), cpu_ms("-m", "app.cli.entry", "--help")) for _ in range(ROUNDS)]
    for number, (bare, full) in enumerate(pairs):
        print(f"round {number}: interpreter {bare:.0f} ms CPU, --help {full:.0f} ms CPU")
    middle = statistics.median
    report(
        "help",
        {"cpu_ms": middle(full for _, full in pairs)},
        {"cpu_ms": middle(bare for bare, _ in pairs)},
    )


if __name__ == "__main__":
    main()
