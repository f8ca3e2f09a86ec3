"""A pytest plugin under which nothing is skipped: a skip or an expected failure is a failure.

    python -m pytest -p tests.support.no_skips

A green run then means that every test ran. It works in the workers of xdist as well.
"""

from collections.abc import Generator

import pytest


def _complaint(report: pytest.TestReport | pytest.CollectReport, what: str) -> str:
    reason: object = getattr(report, "wasxfail", None)
    if reason is None and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
    return f"this run forbids it: {what} ({reason or 'no reason given'})"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped, expectedly failed or unexpectedly passed test into a failed one."""
    report = yield
    if report.skipped or hasattr(report, "wasxfail"):
        what = "an expected failure" if hasattr(report, "wasxfail") else "a skip"
        report.longrepr = _complaint(report, what)
        report.outcome = "failed"
        if hasattr(report, "wasxfail"):
            del report.wasxfail
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module that skips itself into an error of collection."""
    report = yield
    if report.skipped:
        report.longrepr = _complaint(report, "a skip of a whole module")
        report.outcome = "failed"
    return report
