"""What is left of a deleted run is exported, and proves that it was and was lawfully erased."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from tests.integration.audit.test_proofs_and_bundles import verified
from tests.security.tampering_scene import Run, as_superuser, disarm, finished_run
from tests.support.api_matrix import UNKNOWN_RUN, patiently, problem_of
from tests.support.databases import DatabaseServer, Roles
from tests.support.forged_remains import (
    ADMINISTRATION,
    FORGERIES,
    RECORDS,
    Members,
    Remains,
    members_of,
    packed,
)
from tests.support.witnessed_server import WitnessedServer, witnessed_server

BODY = {"action": "delete_run", "legal_basis": "gdpr.art17", "request_ref": "ticket 4711"}


@pytest.fixture(scope="module")
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


@pytest.fixture(scope="module")
def served(roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WitnessedServer]:
    key = tmp_path_factory.mktemp("erasing") / "key"
    with witnessed_server(
        roles,
        MESHFLOW_ERASER_DATABASE_URL=roles.eraser,
        MESHFLOW_ERASURE_KEY_FILE=str(key),
    ) as server:
        yield server


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """A deleted run, and what a stranger would hold against its bundles."""

    run: Run
    policy: str
    remains: Remains


def _deleted(served: WitnessedServer, run: Run) -> bytes:
    """The bundle of what is left, once a witness has seen the erasure."""
    with served.live.client() as client, served.live.client("audit") as auditor:
        asked = client.post("/v1/erasures", json={"run_id": run.public, **BODY})
        assert asked.status_code == 202, asked.text
        for _ in patiently():
            if client.get(f"/v1/runs/{run.public}").status_code == 404:
                break
        for _ in patiently():
            answer = auditor.get(f"/v1/runs/{run.public}/bundle")
            if answer.status_code == 409:
                problem_of(answer, 409, "not-sequenced")
            elif members_of(answer.content)["operator.note"].count("\n\u2014 ".encode()) > 1:
                break  # signed by the log's key and by the witness
        assert answer.status_code == 200, answer.text
        return answer.content


@pytest.fixture(scope="module")
def exports(served: WitnessedServer) -> Exports:
    run, other = finished_run(served.live), finished_run(served.live)
    for made in (run, other):
        served.when(made.public, lambda found: found["state"] == "anchored")
    with served.live.client("audit") as auditor:
        before = auditor.get(f"/v1/runs/{run.public}/bundle").content
        policy = auditor.get("/v1/ledger/policy").text
    assert "erasure" in policy
    after, left = _deleted(served, run), _deleted(served, other)
    return Exports(run=run, policy=policy, remains=Remains(before=before, after=after, other=left))


def _opinion(bundle: bytes, policy: str, directory: Path) -> tuple[int, dict[str, Any]]:
    path = directory / "run.tar"
    path.write_bytes(bundle)
    return verified(path, policy, directory)


def test_it_verifies_as_a_run_that_was_and_is_erased(exports: Exports, tmp_path: Path) -> None:
    code, told = _opinion(exports.remains.after, exports.policy, tmp_path)
    assert code == 0, told
    assert told["deleted"] is True
    assert [item["header"] for item in told["erased"]] == [True] * told["records"]
    assert told["witnessed"] == told["records"] == 9
    code, told = _opinion(exports.remains.before, exports.policy, tmp_path)
    assert (code, told["deleted"]) == (0, False)


def test_what_is_left_says_nothing_of_what_was(exports: Exports) -> None:
    before, after = members_of(exports.remains.before), members_of(exports.remains.after)
    assert after["payloads.jsonl"] == b""
    old = [json.loads(line) for line in before[RECORDS].splitlines()]
    new = [json.loads(line) for line in after[RECORDS].splitlines()]
    kept = ("seq", "rc", "chain", "batch_id", "index")
    assert [[row[name] for name in kept] for row in new] == [
        [row[name] for name in kept] for row in old
    ]
    for row in new:
        assert [row[name] for name in ("header", "epoch", "kind", "ts")] == [None] * 4


def test_it_cannot_be_had_without_the_statement_that_took_the_rest(
    served: WitnessedServer, exports: Exports
) -> None:
    with served.live.client("audit") as auditor:
        bare = auditor.get(f"/v1/runs/{exports.run.public}/bundle?fields=none")
        problem_of(auditor.get(f"/v1/runs/{UNKNOWN_RUN}/bundle"), 404, "not-found")
    assert b"erasure.delete_run" not in members_of(exports.remains.before)[ADMINISTRATION]
    assert members_of(bare.content)[ADMINISTRATION]
    for who, code in (("other", 404), ("forms", 403)):
        with served.live.client(who) as client:
            answer = client.get(f"/v1/runs/{exports.run.public}/bundle")
            problem_of(answer, code, "not-found" if code == 404 else "forbidden")


@pytest.mark.parametrize("forged", FORGERIES, ids=lambda forged: forged.__name__.strip("_"))
def test_what_was_forged_is_refused(
    exports: Exports, tmp_path: Path, forged: Callable[[Remains], Members]
) -> None:
    bundle = packed(forged(exports.remains))
    code, told = _opinion(bundle, exports.policy, tmp_path)
    assert code == 3, told
    assert told["deleted"] is False


def test_without_a_key_for_erasures_it_is_not_whole(exports: Exports, tmp_path: Path) -> None:
    lines = exports.policy.splitlines(keepends=True)
    policy = "".join(line for line in lines if not line.startswith("#meshflow/v1 erasure"))
    assert policy != exports.policy
    assert _opinion(exports.remains.after, policy, tmp_path)[0] == 2


def test_rows_that_were_taken_without_a_statement_are_not_exported(
    served: WitnessedServer, roles: Roles, exports: Exports
) -> None:
    assert exports.remains.after
    run = finished_run(served.live)
    served.when(run.public, lambda found: found["state"] == "anchored")
    disarm(roles)

    async def take(raw: Any) -> None:
        ours = "run_id = $1"
        await raw.execute(f"DELETE FROM payload WHERE {ours}", run.run_id)
        await raw.execute(f"DELETE FROM runs WHERE {ours}", run.run_id)
        gone = "header = NULL, kind = NULL, ts = NULL, epoch = NULL"
        await raw.execute(f"UPDATE record SET {gone} WHERE {ours}", run.run_id)

    assert isinstance(run.run_id, UUID)
    as_superuser(roles, take)
    with served.live.client("audit") as auditor:
        _refused(auditor, run)


def _refused(auditor: httpx2.Client, run: Run) -> None:
    problem_of(auditor.get(f"/v1/runs/{run.public}/bundle"), 409, "ledger-broken")
