"""Whatever is done to a kept output, a reader gets the true words, the ledger's, or a break."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.keys.key_store import FileKeyStore
from tests.integration.erasing.erasing_scene import erasing_beside
from tests.security.tampering_scene import (
    Run,
    Verdict,
    as_superuser,
    assert_whole,
    attack,
    finished_run,
    verification,
)
from tests.support.api_matrix import problem_of
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, live_server

FORGED = "Paid in full."
REASON = "the kept output is not the one that was released"
OTHERS = "(SELECT {c} FROM run_result WHERE run_id <> $1 LIMIT 1)"
CHANGES = {
    "a time without end": "expires_at = 'infinity'",
    "a time before all": "expires_at = '-infinity'",
    "a time before the calendar": "expires_at = '4000-01-01 BC'",
    "a time after the calendar": "expires_at = '20000-01-01'",
    "a time that has passed": "expires_at = now() - interval '1 second'",
    "another blob": "blob = set_byte(blob, 20, get_byte(blob, 20) # 1)",
    "no blob": "blob = ''",
    "the blob of another run": f"blob = {OTHERS.format(c='blob')}",
    "the key of another run": f"wrapped = {OTHERS.format(c='wrapped')}",
    "the blob and key of another run": (
        f"blob = {OTHERS.format(c='blob')}, wrapped = {OTHERS.format(c='wrapped')}"
    ),
    "no key": "wrapped = ''",
    "a name of a key that leads elsewhere": "kek_id = '../../../etc/passwd'",
}


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with live_server(roles) as served:
        finished_run(served)
        yield served


@pytest.fixture
def run(live: LiveServer) -> Run:
    return finished_run(live)


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_kept_output_is_not_shown_and_no_failure(
    live: LiveServer, run: Run, how: str
) -> None:
    with live.client() as client:
        before = client.get(f"/v1/runs/{run.public}").json()
        attack(live.roles, f"UPDATE run_result SET {CHANGES[how]} WHERE run_id = $1", run.run_id)
        answer = client.get(f"/v1/runs/{run.public}")
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert (before["output_state"], after["output_state"]) == ("full", "scrubbed")
    assert after["output"] == before["output"]  # it held no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A kept output as whoever has the database and the key directory holds it."""

    key: bytes
    blob: bytes
    place: bytes

    @property
    def text(self) -> str:
        """What it says."""
        return AESGCM(self.key).decrypt(self.blob[:12], self.blob[12:], self.place).decode()


def _kept(live: LiveServer, run: Run) -> Kept:
    """Opened with the work key of its day, which is stolen."""

    async def act(raw: asyncpg.Connection) -> asyncpg.Record:
        return await raw.fetchrow("SELECT * FROM run_result WHERE run_id = $1", run.run_id)

    row = as_superuser(live.roles, act)
    place = row["tenant_id"].bytes + row["run_id"].bytes
    key = FileKeyStore(live.keys, os.urandom).unwrap(row["kek_id"], row["wrapped"], place)
    return Kept(key=key, blob=row["blob"], place=place)


def _put(live: LiveServer, run: Run, text: str) -> None:
    """Seal another text where a run's output is kept, under the very key that is there."""
    kept, nonce = _kept(live, run), os.urandom(12)
    blob = nonce + AESGCM(kept.key).encrypt(nonce, text.encode(), kept.place)
    attack(live.roles, "UPDATE run_result SET blob = $2 WHERE run_id = $1", run.run_id, blob)


def _insert(live: LiveServer, run: Run, text: str) -> None:
    """Keep an output, sealed as the service would have, for a run that has none."""

    async def act(raw: asyncpg.Connection) -> None:
        query = "SELECT tenant_id FROM runs WHERE run_id = $1"
        tenant: UUID = await raw.fetchval(query, run.run_id)
        place, key, nonce = tenant.bytes + run.run_id.bytes, os.urandom(32), os.urandom(12)
        store = FileKeyStore(live.keys, os.urandom)
        kek_id = store.kek_ids("work/")[0]
        await raw.execute(
            "INSERT INTO run_result (tenant_id, run_id, kek_id, wrapped, blob, expires_at)"
            " VALUES ($1, $2, $3, $4, $5, now() + interval '1 hour')",
            tenant,
            run.run_id,
            kek_id,
            store.wrap(kek_id, key, place),
            nonce + AESGCM(key).encrypt(nonce, text.encode(), place),
        )

    as_superuser(live.roles, act)


def _assert_refused(live: LiveServer, run: Run, seq: int) -> None:
    """Wherever the output in full would be shown, and in the verdict, the break is named."""
    assert verification(live, run) == Verdict(verdict="broken", seq=seq, reason=REASON)
    with live.client() as client:
        answers = [
            client.get(f"/v1/runs/{run.public}"),
            client.post(f"/v1/runs/{run.public}/cancel"),
            client.get(f"/v1/runs/{run.public}/bundle"),
        ]
    for answer in answers:
        told = problem_of(answer, 409, "ledger-broken")
        assert f"{seq}" in told["detail"], told
        assert REASON in told["detail"], told
        assert FORGED not in answer.text


def test_an_output_nobody_touched_is_shown_in_full_and_verifies(live: LiveServer, run: Run) -> None:
    with live.client() as client:
        shown = client.get(f"/v1/runs/{run.public}").json()
        entries = client.get(f"/v1/runs/{run.public}/entries").json()["data"]
        events = client.get(f"/v1/runs/{run.public}/events?follow=false").text
        told = client.get(f"/v1/runs/{run.public}/verification").json()
    assert (shown["output"], shown["output_state"]) == (_kept(live, run).text, "full")
    assert told["verdict"] == "valid"
    assert "the output in full, while it is kept, is the one that was released" in told["proves"]
    # What binds it is no content: readers of entries are not shown it.
    assert set(entries[-1]) == {*entries[1], "output"}
    assert "released" not in f"{entries}{events}"


def test_a_kept_output_forged_with_the_stolen_work_key_is_named(
    live: LiveServer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    _put(live, run, FORGED)
    _assert_refused(live, run, 8)
    # The alarm was sounded, once, as for every other break.
    assert [REASON in line for line in caplog.messages].count(True) == 1


@pytest.mark.parametrize("change", ["{} ", "", "{}\x00", "X{}"])
def test_no_other_text_passes_for_the_one_that_was_released(
    live: LiveServer, run: Run, change: str
) -> None:
    _put(live, run, change.format(_kept(live, run).text))
    _assert_refused(live, run, 8)


def test_what_does_not_show_the_output_in_full_does_not_look_at_it(
    live: LiveServer, run: Run
) -> None:
    """Entries and events hold the scrubbed output, which is a field of the final record."""
    _put(live, run, FORGED)
    with live.client() as client:
        for path in ("/entries", "/events?follow=false"):
            answer = client.get(f"/v1/runs/{run.public}{path}")
            assert (answer.status_code, FORGED in answer.text) == (200, False)
            assert "391" in answer.text


def test_the_text_that_was_released_may_be_sealed_again(live: LiveServer, run: Run) -> None:
    _put(live, run, _kept(live, run).text)
    assert_whole(live, run)


def test_the_output_of_another_run_sealed_for_this_one_is_named(live: LiveServer, run: Run) -> None:
    with live.client() as client:
        body = {"task": "What is 6 * 7?"}
        answer = client.post("/v1/runs", json=body, headers={"Prefer": "wait=20"}).json()
    other = Run(public=answer["id"], run_id=UUID(answer["id"].removeprefix("run_")))
    _put(live, run, _kept(live, other).text)
    _assert_refused(live, run, 8)
    assert verification(live, other).verdict == "valid"


def test_a_deleted_kept_output_leaves_the_scrubbed_one(live: LiveServer, run: Run) -> None:
    attack(live.roles, "DELETE FROM run_result WHERE run_id = $1", run.run_id)
    with live.client() as client:
        shown = client.get(f"/v1/runs/{run.public}").json()
    assert shown["output_state"] == "scrubbed"
    assert_whole(live, run)


def test_an_output_kept_for_a_run_that_released_none_is_named(live: LiveServer) -> None:
    with live.client() as client:
        body = {"task": "What is 17 * 23?", "budget": {"max_steps": 1}}
        answer = client.post("/v1/runs", json=body, headers={"Prefer": "wait=20"}).json()
    assert (answer["output"], answer["status"]) == (None, "blocked"), answer
    run = Run(public=answer["id"], run_id=UUID(answer["id"].removeprefix("run_")))
    assert verification(live, run).verdict == "valid"
    _insert(live, run, FORGED)
    _assert_refused(live, run, answer["entries"] - 1)


@pytest.mark.parametrize("fields", [["output"], None])
def test_an_erased_output_does_not_come_back(
    live: LiveServer, run: Run, fields: list[str] | None
) -> None:
    text = _kept(live, run).text

    async def erase() -> None:
        async with erasing_beside(live) as erasing:
            receipt = await erasing.anonymize(run, fields)
            assert receipt.executed_at is not None, receipt

    asyncio.run(erase())
    for again in (FORGED, text):
        _insert(live, run, again)
        with live.client() as client:
            shown = client.get(f"/v1/runs/{run.public}").json()
        assert (shown["output"], shown["output_state"]) == (None, "erased")
        assert verification(live, run).verdict == "valid"
        attack(live.roles, "DELETE FROM run_result WHERE run_id = $1", run.run_id)


def test_after_another_field_was_erased_no_kept_output_passes(live: LiveServer, run: Run) -> None:
    text = _kept(live, run).text

    async def erase() -> None:
        async with erasing_beside(live) as erasing:
            await erasing.anonymize(run, ["task"])

    asyncio.run(erase())
    with live.client() as client:
        shown = client.get(f"/v1/runs/{run.public}").json()
    assert (shown["output"], shown["output_state"]) == (text, "scrubbed")
    _insert(live, run, FORGED)
    _assert_refused(live, run, 8)
