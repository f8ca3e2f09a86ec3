"""Every decision is recorded with what it was made on, so that it can be asked again.

Threat: Prompt injection via task input
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.domain.features import DecisionInput
from app.domain.run import RunId, TenantId, parse_run_id
from app.ledger.chain import VerifiedRecord
from app.ledger_assembly import ledger_parts
from app.policy.decide import decide, feature_bytes
from tests.integration.gate.gate_scenes import elsewhere, rows
from tests.integration.runs.approval_scene import desk
from tests.support.asking_policy import asking
from tests.support.databases import DatabaseServer, Roles
from tests.support.live_server import settings_for


@pytest.fixture
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


def _records(roles: Roles, public: str, directory: Path) -> Sequence[VerifiedRecord]:
    run_id = parse_run_id(public)
    assert run_id is not None
    found = rows(roles, "SELECT tenant_id FROM runs WHERE run_id = $1", run_id)
    return elsewhere(lambda: _replayed(roles, TenantId(found[0]["tenant_id"]), run_id, directory))


async def _replayed(
    roles: Roles, tenant_id: TenantId, run_id: RunId, directory: Path
) -> Sequence[VerifiedRecord]:
    parts = ledger_parts(settings_for(directory, roles))
    try:
        return await parts.replay.replay(tenant_id, run_id)
    finally:
        await parts.database.close()
        await asyncio.sleep(0)


def _question(record: VerifiedRecord) -> tuple[DecisionInput, dict[str, Any]]:
    told: dict[str, Any] = json.loads(record.fields["features"])
    return DecisionInput.from_json(told), told["weighed"]


def test_what_was_decided_is_decided_again_from_the_records_alone(
    roles: Roles, tmp_path: Path
) -> None:
    with desk(roles) as scene:
        run_id = scene.submitted()
        scene.decided(scene.waiting(run_id), "approve").raise_for_status()
        scene.state(run_id, "succeeded")
        entries = scene.entries(run_id)
        records = _records(roles, run_id, tmp_path)
    bundle = asking().bundle
    asked = [record for record in records if "features" in record.fields]
    kinds = {record.kind for record in asked}
    assert {"run.submitted", "llm.requested", "llm.responded", "tool.decided"} <= kinds
    assert {"tool.finished", "approval.decided", "run.finished"} <= kinds
    for record in asked:
        question, weighed = _question(record)
        policy = record.header["policy"]
        assert isinstance(policy, dict)
        again = decide(question, bundle, catalogue_digest=weighed["catalogue"])
        assert again.verdict.value == policy["verdict"]
        assert list(again.rules) == policy["rules"]
        assert list(again.reasons) == weighed["reasons"]
        digest = hashlib.sha256(feature_bytes(question.to_json())).hexdigest()
        assert again.input_digest == digest
    shown = next(entry for entry in entries if entry["kind"] == "tool.decided")["decision"]
    assert shown["verdict"] == "require_approval"
    assert shown["rules"] == ["test.ask"]
    assert shown["weighed"]["reasons"] == ["test:somebody_decides"]
    assert shown["weighed"]["mode"] == "standard"
    assert shown["weighed"]["label"]["integrity"] == "user"
    assert shown["weighed"]["micros"] >= 0


def test_no_content_is_in_what_was_decided_on(roles: Roles, tmp_path: Path) -> None:
    with desk(roles) as scene:
        run_id = scene.submitted()
        scene.decided(scene.waiting(run_id), "approve").raise_for_status()
        scene.state(run_id, "succeeded")
        records = _records(roles, run_id, tmp_path)
    told = b"".join(record.fields.get("features", b"") for record in records)
    assert b"forty-two" not in told
    assert b"made.txt" not in told
    assert b"write_file" in told
