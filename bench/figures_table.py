"""Writes docs/figures.md: the newest reading of every bench beside its goal and its baseline."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
TABLE = ROOT / "docs" / "figures.md"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a metric is to reach."""

    bench: str
    metric: str
    told: str
    bound: Literal["at least", "at most"]
    limit: float

    def holds(self, value: float) -> bool:
        """Whether it is reached."""
        return value >= self.limit if self.bound == "at least" else value <= self.limit


GOALS = (
    Goal("http", "post_ratio", "POST /v1/runs, share of the baseline's rate", "at least", 0.25),
    Goal("http", "post_p99_ratio", "POST /v1/runs, p99 by the baseline's", "at most", 3),
    Goal("http", "governed_ratio_16", "governed call by 16, share of bare SDK's", "at least", 0.75),
    Goal("http", "governed_added_p50_ms", "governed call, added to p50, ms", "at most", 3),
    Goal("http", "governed_added_p99_ms", "governed call, added to p99, ms", "at most", 15),
    Goal("http", "start_p99_ms", "from accepted to begun, p99, ms", "at most", 25),
    Goal("run", "cpu_ms_per_run", "CPU of a run with two tool calls, ms", "at most", 6),
    Goal("run", "idle_rss_mb", "memory of an idle server, MB", "at most", 110),
    Goal("help", "cpu_ms", "CPU of `meshflow --help`, ms", "at most", 400),
    Goal("ledger", "append_ratio_64", "append at 64, by raw INSERT", "at least", 0.9),
    Goal("ledger", "append_ratio_256", "append at 256, by raw INSERT", "at least", 1.4),
    Goal("ledger", "p99_ratio_64", "append at 64, p99 by raw INSERT's", "at most", 1.2),
    Goal("ledger", "verify_ratio", "verifying, share of reading raw", "at least", 0.5),
    Goal("ledger", "verify_100_steps_ms", "verifying 100 steps, ms", "at most", 5),
    Goal("ledger", "sequence_per_second", "records sequenced a second", "at least", 10_000),
    Goal("ledger", "checkpoint_age_seconds", "age of a checkpoint, s", "at most", 10),
    Goal("tools", "calculator_ms", "calculator, p50, ms", "at most", 0.2),
    Goal("tools", "file_ms", "reading a file, p50, ms", "at most", 0.1),
    Goal("tools", "native_ms", "Python program in its worker, p50, ms", "at most", 6),
    Goal("tools", "monty_ms", "program in a Monty that waited, p50, ms", "at most", 0.5),
    Goal("tools", "shell_ms", "command in the shell's worker, p50, ms", "at most", 25),
    Goal("tools", "confinement_ms", "confinement itself, CPU of a worker, ms", "at most", 1),
    Goal("tools", "escape_attempts", "attacks on tools, first layer off", "at least", 150),
    Goal("tools", "control_succeeded", "of these, proven without walls", "at least", 80),
    Goal("tools", "escapes", "of these, that succeed", "at most", 0),
    Goal("tools", "dos_over_deadline", "programs over their deadline by 0.5 s", "at most", 0),
    Goal("tools", "ssrf_urls", "URLs to places inside", "at least", 150),
    Goal(
        "tools",
        "ssrf_control_leaks",
        "of these, through clients without the guard",
        "at least",
        100,
    ),
    Goal("tools", "ssrf_leaks", "of these, that get through", "at most", 0),
    Goal("tools", "race_opens", "opens in a race with a swapper", "at least", 100_000),
    Goal("tools", "race_control_leaks", "outside, when resolved before opening", "at least", 100),
    Goal("tools", "race_leaks", "outside, by the file tools", "at most", 0),
    Goal("sse", "streams", "idle streams on one process", "at least", 10_000),
    Goal("sse", "rss_mb", "memory of that process, MB", "at most", 1536),
    Goal("rolling", "requests", "requests during restarts behind nginx", "at least", 10_000),
    Goal("rolling", "failed", "of these, that failed", "at most", 0),
    Goal("rolling", "stream_faults", "gaps and repetitions in streams", "at most", 0),
    Goal("rolling", "idle_event_seconds_max", "slowest event to an idle stream, s", "at most", 5),
    Goal("gate", "attack_success", "attacks on a lost model that do harm", "at most", 0.01),
    Goal("gate", "attack_success_encoded", "the same, encoded", "at most", 0.01),
    Goal("gate", "any_effect", "attacks with any effect at all", "at most", 0.02),
    Goal("gate", "autonomous_utility", "tasks done with nobody to ask", "at least", 0.74),
    Goal("gate", "approvals_per_task", "questions to a person, for each task", "at most", 0.35),
    Goal("gate", "strict_attack_success", "attacks that do harm, strict", "at most", 0),
    Goal("gate", "decide_p99_ms", "a decision under sixty rules, p99, ms", "at most", 2),
)


def main() -> int:
    """Write the table from what is in bench/results. Exit code 1 when a goal has no reading."""
    read = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    lines = [
        "# Figures",
        "",
        "Each is read by the bench of its name (`make bench-NAME`), which runs its baseline in the",
        "same minute and prints both configurations. `make proof` writes this page. Machines are",
        "noisy: a figure is one reading on the machine named, and no test depends on it.",
        "",
        "| bench | figure | goal | measured | reached |",
        "|---|---|---|---|---|",
    ]
    missing = []
    for goal in GOALS:
        value = read.get(goal.bench, {}).get("metrics", {}).get(goal.metric)
        if value is None:
            missing.append(f"{goal.bench}.{goal.metric}")
            continue
        reached = "yes" if goal.holds(value) else "**no**"
        wanted = f"{goal.bound} {goal.limit:g}"
        lines.append(f"| {goal.bench} | {goal.told} | {wanted} | {value:,.2f} | {reached} |")
    lines += ["", "Baselines and machines, as the benches printed them:", ""]
    for name, told in read.items():
        baseline, machine = json.dumps(told["baseline"]), json.dumps(told["machine"])
        lines.append(f"- `{name}`: `{baseline}` on `{machine}`")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{TABLE.relative_to(ROOT)}: {len(GOALS) - len(missing)} of {len(GOALS)} figures")
    for name in missing:
        print(f"no reading of {name}: run make bench-{name.partition('.')[0]}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
