"""The alerts that are shipped ask for metrics that there are. The lane runs promtool on them."""

import re

from app.telemetry.meters import REGISTRY
from tests.architecture.source_tree import ROOT

ALERTS = (ROOT / "docs" / "operations" / "alerts.yml").read_text(encoding="utf-8")
SUFFIXES = ("", "_total", "_bucket", "_count", "_sum")


def exported() -> set[str]:
    return {metric.name + suffix for metric in REGISTRY.collect() for suffix in SUFFIXES}


def test_each_alert_asks_for_metrics_that_are_exported() -> None:
    asked = set(re.findall(r"\bmeshflow_[a-z_]+", ALERTS))
    assert len(asked) >= 5
    assert asked <= exported()


def test_there_are_three_alerts_each_with_an_expression_and_words_for_who_is_woken() -> None:
    rules = ALERTS.split("- alert: ")[1:]
    assert len(rules) == 3
    for rule in rules:
        assert all(
            f"\n        {word}:" in rule for word in ("expr", "for", "labels", "annotations")
        )
        assert "summary:" in rule
        assert "description:" in rule


def test_the_page_on_running_names_every_metric() -> None:
    page = (ROOT / "docs" / "operations" / "running.md").read_text(encoding="utf-8")
    told = set(re.findall(r"\bmeshflow_[a-z_]+", page))
    names = {f"{m.name}_total" if m.type == "counter" else m.name for m in REGISTRY.collect()}
    assert told == names
