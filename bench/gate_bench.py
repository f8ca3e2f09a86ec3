"""A lost model against the gate: what its attackers reach, and what that costs its user.

`--write` writes docs/gate-bench.md, `--full` replays every encoding of every pair, `--show` prints
what came through and what stopped, `--wrong-labels` trusts the whole result of one tool at a time.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from bench.gate_suite.campaign import (
    DERIVED,
    PROFILES,
    STANDARD,
    STRICT,
    Attacked,
    Counted,
    Sample,
    attacked,
    counted,
)
from bench.gate_suite.decide_cost import p99, taken
from bench.gate_suite.domain_file import Domain, held_out, own_domains
from bench.gate_suite.gate_page import figures, page, told, trusted_only, wrong_labels
from bench.gate_suite.gates import DeclaredGate, GateUnderTest, NoGate
from bench.gate_suite.neighbours import neighbours
from bench.gate_suite.policy_room import PolicyRoomGate
from bench.paired import ROOT, report

_FLIPPED_ONE_IN = 11  # of the pairs, for each tool that is wrongly trusted


def main() -> None:
    """Replay everything and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/gate-bench.md")
    parser.add_argument("--full", action="store_true", help="every encoding of every pair")
    parser.add_argument("--show", action="store_true", help="print what came through")
    parser.add_argument("--wrong-labels", action="store_true", help="one tool wrongly trusted")
    parser.add_argument("--one-in", type=int, default=5, help="replay one pair in so many")
    chosen = parser.parse_args()
    sample = Sample(one_in=1 if chosen.full else chosen.one_in, all_encodings=chosen.full)
    domains, unseen, gate = own_domains(), held_out(), PolicyRoomGate()
    rows = [counted(domains, NoGate(), replace(DERIVED, name="no gate"), sample)]
    rows += [
        counted(domains, DeclaredGate(), replace(STANDARD, name="declared tools only"), sample)
    ]
    rows += [_counted(domains, gate, number, sample) for number in range(len(PROFILES))]
    apart: list[Counted] = []
    if unseen is not None:
        apart = [_counted([unseen], gate, number, sample) for number in range(len(PROFILES))]
    for row in (*rows, *apart):
        print(told(row))
        if chosen.show:
            _show(row)
    beside = neighbours(domains, gate, STANDARD)
    flipped = _flipped(domains, gate) if chosen.wrong_labels else {}
    if chosen.write:
        text = page(domains, rows, apart) + trusted_only(beside) + wrong_labels(flipped)
        (ROOT / "docs" / "gate-bench.md").write_text(text, encoding="utf-8")
    by_name = {row.name: row for row in rows}
    walls, processor = taken()
    metrics = figures(by_name[STANDARD.name], by_name[STRICT.name]) | {
        "decide_p99_ms": p99(walls),
        "decide_p99_processor_ms": p99(processor),
        "decide_p50_ms": median(walls),
        "neighbours_passed": len(beside.passed) / beside.tried,
    }
    baseline = figures(rows[0], rows[0])
    report("gate", metrics, baseline)


def _counted(
    domains: Sequence[Domain], gate: GateUnderTest, number: int, sample: Sample
) -> Counted:
    return counted(domains, gate, PROFILES[number], sample)


def _flipped(domains: Sequence[Domain], gate: GateUnderTest) -> dict[str, tuple[Attacked, ...]]:
    """For each tool: the sample with its labels as written, and with all of its result trusted."""
    sample = Sample(one_in=_FLIPPED_ONE_IN)
    found: dict[str, tuple[Attacked, ...]] = {}
    for domain in domains:
        written = attacked(domain, gate, STANDARD, sample)
        for tool in domain.tools.values():
            if not tool.effectful:
                mistaken = replace(STANDARD, believed_tool=tool.name)
                found[f"{domain.name}/{tool.name}"] = (
                    written,
                    attacked(domain, gate, mistaken, sample),
                )
    return found


def _show(row: Counted) -> None:
    for line in row.benign.stopped:
        print("   stopped:", line)
    through = row.all_forms.through + row.echoing.through + row.words_only.through
    for line, number in sorted(through.items()):
        print(f"   {number:5} {line}")


if __name__ == "__main__":
    main()
