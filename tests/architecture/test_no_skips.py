"""The plugin that forbids skips lets no skip through, in one process and in workers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

_SILENT = {
    "mark": "@pytest.mark.skip(reason='later')\ndef test_it() -> None: ...",
    "condition": "@pytest.mark.skipif(True, reason='later')\ndef test_it() -> None: ...",
    "call": "def test_it() -> None:\n    pytest.skip('later')",
    "fixture": "@pytest.fixture\ndef gone() -> None:\n    pytest.skip('later')\n\n"
    "def test_it(gone: None) -> None: ...",
    "xfail": "@pytest.mark.xfail(reason='later')\ndef test_it() -> None:\n    assert 1 == 2",
    "xfail-call": "def test_it() -> None:\n    pytest.xfail('later')",
    "xpass": "@pytest.mark.xfail(reason='later')\ndef test_it() -> None: ...",
    "module": "pytest.skip('later', allow_module_level=True)\ndef test_it() -> None: ...",
    "importorskip": "pytest.importorskip('no_such_module')\ndef test_it() -> None: ...",
}
_PLUGIN = ("-p", "tests.support.no_skips")
_GREEN = "import pytest\n\ndef test_green() -> None: ...\n"


def _run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # noqa: TID251  # the child runs in ours
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _silent_suite(folder: Path) -> None:
    (folder / "test_green.py").write_text(_GREEN, encoding="utf-8")
    for way, body in _SILENT.items():
        file = folder / f"test_{way.replace('-', '_')}.py"
        file.write_text(f"import pytest\n\n{body}\n", encoding="utf-8")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_way_to_skip_is_a_failure(workers: str, tmp_path: Path) -> None:
    _silent_suite(tmp_path)
    ran = _run(tmp_path, *_PLUGIN, "-n", workers, "--continue-on-collection-errors")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    counts = {
        what: int(n) for n, what in re.findall(r"(\d+) ([a-z]+)", ran.stdout.splitlines()[-1])
    }
    assert counts.pop("passed") == 1, ran.stdout
    assert counts.pop("failed") + counts.pop("error", 0) + counts.pop("errors", 0) == len(_SILENT)
    assert counts.keys().isdisjoint({"skipped", "xfailed", "xpassed"}), ran.stdout


def test_without_the_plugin_the_same_suite_is_green(tmp_path: Path) -> None:
    _silent_suite(tmp_path)
    ran = _run(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_run_without_skips_stays_green(tmp_path: Path) -> None:
    (tmp_path / "test_green.py").write_text(_GREEN, encoding="utf-8")
    ran = _run(tmp_path, *_PLUGIN)
    assert ran.returncode == 0, ran.stdout + ran.stderr
