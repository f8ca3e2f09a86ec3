"""Rooms import downwards only: the contracts of pyproject.toml hold, and each one can be broken."""

import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A violation: the contract that must catch it, and the modules that commit it."""

    contract: str
    files: dict[str, str] = field(default_factory=dict)
    told: str


_DOC = '"""Planted."""\n'
PLANTED = (
    Planted(
        contract="rooms",
        files={"domain/planted.py": f"{_DOC}import app.policy.gate\n"},
        told="app.domain.planted -> app.policy.gate",
    ),
    Planted(
        contract="rooms",
        files={"attic/__init__.py": "", "attic/planted.py": _DOC},
        told="attic",
    ),
    Planted(
        contract="edge",
        files={"api/planted.py": f"{_DOC}import app.storage.database\n"},
        told="app.api.planted -> app.storage.database",
    ),
    Planted(
        contract="provider-floors",
        files={"providers/wire/planted.py": f"{_DOC}import app.providers.anthropic\n"},
        told="app.providers.wire.planted -> app.providers.anthropic",
    ),
    Planted(
        contract="providers-apart",
        files={
            "providers/extras/openai_session.py": (
                f"{_DOC}import app.providers.extras.gemini_session\n"
            )
        },
        told="app.providers.extras.openai_session",
    ),
    Planted(
        contract="loop",
        files={"agents/planted.py": f"{_DOC}import app.storage.database\n"},
        told="app.agents.planted -> app.storage.database",
    ),
    Planted(
        contract="ledger-door",
        files={"runs/planted.py": f"{_DOC}import app.storage.ledger_store\n"},
        told="app.runs.planted -> app.storage.ledger_store",
    ),
    Planted(
        contract="erasing-door",
        files={"runs/planted.py": f"{_DOC}import app.storage.erasing_store\n"},
        told="app.runs.planted -> app.storage.erasing_store",
    ),
    Planted(
        contract="tables-door",
        files={"runs/planted.py": f"{_DOC}import app.storage.tables\n"},
        told="app.runs.planted -> app.storage.tables",
    ),
    Planted(
        contract="pure",
        files={"privacy/planted.py": f"{_DOC}import sqlalchemy\n"},
        told="app.privacy.planted -> sqlalchemy",
    ),
    Planted(
        contract="witness-apart",
        files={"witness/planted.py": f"{_DOC}import app.settings\n"},
        told="app.witness.planted -> app.settings",
    ),
    Planted(
        contract="offline",
        files={"offline/planted.py": f"{_DOC}import app.domain.errors\n"},
        told="app.offline.planted -> app.domain.errors",
    ),
    Planted(
        contract="acyclic",
        files={
            "tools/planted_a.py": f"{_DOC}import app.tools.planted_b\n",
            "tools/planted_b.py": f"{_DOC}import app.tools.planted_a\n",
        },
        told="planted_a",
    ),
)


def _lint(tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the import contracts on the tree at this path, and on no other."""
    program = Path(sys.executable).parent / "lint-imports"
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200", "NO_COLOR": "1"}  # noqa: TID251  # the child runs in ours, with the path of the tree in front
    return subprocess.run(
        [program, "--no-logo", "--no-cache", *options],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _copy(to: Path) -> None:
    shutil.copytree(ROOT / "app", to / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)


def test_every_contract_has_a_planted_violation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {contract["id"] for contract in project["tool"]["importlinter"]["contracts"]}
    assert contracts == {planted.contract for planted in PLANTED}


def test_every_import_contract_is_kept() -> None:
    answer = _lint(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert " 0 broken" in answer.stdout


@pytest.mark.parametrize(
    "planted", PLANTED, ids=[f"{case.contract}-{next(iter(case.files))}" for case in PLANTED]
)
def test_a_planted_violation_breaks_its_contract(planted: Planted, tmp_path: Path) -> None:
    _copy(tmp_path)
    for name, text in planted.files.items():
        file = tmp_path / "app" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    answer = _lint(tmp_path, "--contract", planted.contract)
    assert answer.returncode != 0, answer.stdout
    assert planted.told in answer.stdout, answer.stdout + answer.stderr
