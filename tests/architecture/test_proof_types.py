"""A proof has one maker, and whoever skips the maker does not type-check."""

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.architecture.proof_use import ProofUses, proof_fields
from tests.architecture.source_tree import ROOT, parsed, python_files, relative

GATE = "app/policy/gate.py"
SCRUBBER = "app/privacy/scrubber.py"
CHAIN = "app/ledger/chain.py"
VERDICT = "app/domain/verdict.py"

# Proof -> the module that defines it, and the only module that may make one.
PROOFS: Mapping[str, tuple[str, str]] = {
    "AdmittedTask": (VERDICT, GATE),
    "ClearedRequest": (VERDICT, GATE),
    "AdmittedReply": (VERDICT, GATE),
    "AuthorizedCall": (VERDICT, GATE),
    "AdmittedResult": (VERDICT, GATE),
    "AdmittedMessage": (VERDICT, GATE),
    "ReleasedOutput": (VERDICT, GATE),
    "ClearedDelivery": (VERDICT, GATE),
    "ResolvedApproval": (VERDICT, GATE),
    "Scrubbed": (VERDICT, SCRUBBER),
    "VerifiedChain": (CHAIN, CHAIN),
}


def _fields() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for home in sorted({home for home, _ in PROOFS.values()}):
        found |= proof_fields(parsed(ROOT / home), frozenset(PROOFS))
    return found


def _forged(place: str, tree: ast.Module) -> set[str]:
    return {
        f"{place}:{line} {proof}"
        for line, proof in ProofUses(tree, _fields()).found()
        if proof not in PROOFS or PROOFS[proof][1] != place
    }


def test_the_table_names_every_proof_there_is() -> None:
    declared = {
        node.name
        for path in python_files("app")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
        and (ast.get_docstring(node) or "").startswith("Proof that")
    }
    assert declared == set(PROOFS)
    assert set(_fields()) == set(PROOFS)


def test_no_proof_is_made_or_altered_outside_its_maker() -> None:
    found = {told for file in python_files("app") for told in _forged(relative(file), parsed(file))}
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize("maker", sorted({maker for _, maker in PROOFS.values()}))
def test_each_maker_is_seen_to_make(maker: str) -> None:
    made = {proof for _, proof in ProofUses(parsed(ROOT / maker), _fields()).found()}
    assert {proof for proof in made if PROOFS[proof][1] == maker}


_FROM = "from app.domain.verdict import AuthorizedCall"


@pytest.mark.parametrize(
    "source",
    [
        f"{_FROM}\nAuthorizedCall(call=c, spec=s, decision=d)",
        f"{_FROM} as Ticket\nTicket(call=c, spec=s, decision=d)",
        "import app.domain.verdict as v\nv.AuthorizedCall(call=c, spec=s, decision=d)",
        "from app.domain import verdict\nverdict.AuthorizedCall(call=c, spec=s, decision=d)",
        f"{_FROM}\nmake = AuthorizedCall\nmake(call=c, spec=s, decision=d)",
        f"{_FROM}\nfrom functools import partial\npartial(AuthorizedCall, call=c)",
        f"{_FROM}\nfrom typing import cast\ncast(AuthorizedCall, c)",
        "from typing import cast\ncast('AuthorizedCall', c)",
        f"{_FROM}\nobject.__new__(AuthorizedCall)",
        f"{_FROM}\nAuthorizedCall.__new__(AuthorizedCall)",
        "object.__new__(type(ticket))",
        f"{_FROM}\nclass Mine(AuthorizedCall): ...",
        "object.__setattr__(ticket, 'call', other)",
        "from dataclasses import replace\nreplace(ticket, call=other)",
        "import dataclasses\ndataclasses.replace(ticket, **words)",
        "import copy\ncopy.replace(ticket, call=other)",
        "ticket.__replace__(call=other)",
        "import dataclasses\ndef f(t: AuthorizedCall): return dataclasses.replace(t, call=other)",
        "getattr(verdict, 'AuthorizedCall')(call=c)",
    ],
)
def test_a_forgery_is_seen_however_it_is_spelled(source: str) -> None:
    assert _forged("app/agents/loop.py", ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        f"{_FROM}\ndef run(ticket: AuthorizedCall) -> None: ...",
        f"{_FROM}\nisinstance(answer, AuthorizedCall)",
        f"{_FROM}\nmatch answer:\n    case AuthorizedCall(call=c): ...",
        f"{_FROM}\nAnswer = AuthorizedCall | None",
        "from dataclasses import replace\nreplace(anything, epoch=1)",
        "from dataclasses import replace\ndef f(m: TextMessage): return replace(m, text='')",
        "class A:\n    def __post_init__(self): object.__setattr__(self, 'x', 1)",
    ],
)
def test_who_only_carries_a_proof_is_left_alone(source: str) -> None:
    assert _forged("app/agents/loop.py", ast.parse(source)) == set()


_PROGRAM = """
from app.domain.record import RunEvent
from app.domain.run import Usage
from app.domain.step import ModelRequest, ToolCall
from app.domain.verdict import AuthorizedCall, ClearedRequest, Scrubbed
from app.ledger.writing import Draft
from app.providers.provider import ModelProvider
from app.runs.recorder import LedgerRecorder
from app.sandbox.workspace import Workspace
from app.tools.toolbox import Toolbox

async def tools(box: Toolbox, proof: AuthorizedCall, bare: ToolCall, where: Workspace) -> None:
    await box.run(proof, where)
    await box.run(bare, where)  # REFUSED

async def model(provider: ModelProvider, proof: ClearedRequest, bare: ModelRequest) -> None:
    await provider.complete(proof)
    await provider.complete(bare)  # REFUSED

async def record(recorder: LedgerRecorder, event: RunEvent, bare: bytes) -> None:
    await recorder.record(event, Usage())
    await recorder.record(bare, Usage())  # REFUSED

def seal(proof: Scrubbed, bare: bytes) -> None:
    Draft(kind="run.submitted", actor="system", fields={"task": proof})
    Draft(kind="run.submitted", actor="system", fields={"task": bare})  # REFUSED
"""


def test_who_skips_the_gate_or_the_scrubber_does_not_type_check(tmp_path: Path) -> None:
    """mypy must refuse exactly the marked lines: the line before each is the lawful twin."""
    program = tmp_path / "skips_the_gate.py"
    program.write_text(_PROGRAM, encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--no-pretty", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    told = answer.stdout + answer.stderr
    refused = {
        int(line) for line in re.findall(r"skips_the_gate\.py:(\d+): error:", told, re.MULTILINE)
    }
    marked = {n for n, text in enumerate(_PROGRAM.splitlines(), 1) if text.endswith("# REFUSED")}
    assert len(marked) == 4
    assert refused == marked, told
    assert "import-not-found" not in told, told
