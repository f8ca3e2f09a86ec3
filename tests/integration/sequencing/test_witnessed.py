"""A real witness cosigns what is sequenced, and what it has not seen yet has an age."""

import asyncio
import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from app.keys.signing_keys import LOG, SigningKeys
from app.sequencing.anchoring import WitnessAnchor
from app.sequencing.ledger_pulse import LedgerPulse
from app.sequencing.witness_client import WitnessClient
from app.transparency.checkpoint import verify_cosignature
from app.transparency.note import VerifierKey, parse_note, with_signatures
from tests.integration.sequencing.keeper_scene import eventually, exists, watch_on
from tests.integration.sequencing.log_scene import operator_of, origin_of
from tests.support.databases import DatabaseServer, Roles, connect
from tests.support.small_log import NoteKey, SmallLog
from tests.support.witness_process import new_files, witness_process

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


async def test_a_witness_cosigns_the_operator_log_as_it_grows(fresh: Roles, tmp_path: Path) -> None:
    operator = await operator_of(fresh)
    log_key = SigningKeys(tmp_path / "keys", os.urandom).current(LOG)
    watched = SmallLog(NoteKey(origin_of(operator.bytes), seed=log_key.seed))
    cosigned = "SELECT 1 FROM cosignature WHERE tenant_id = $1 AND size >= $2"
    with new_files() as files, witness_process(files, [watched]) as witness:
        async with httpx2.AsyncClient(trust_env=False) as http:
            anchor = WitnessAnchor("w1", WitnessClient(witness.url, witness.vkey, http))
            async with watch_on(fresh, tmp_path, [anchor]) as watch:
                async with watch.running():
                    for size in (2, 3, 4):
                        await watch.scene.begun()
                        await eventually(exists(cosigned, operator, size), fresh)
                raw = await connect(fresh.superuser)
                rows = await raw.fetch(
                    "SELECT * FROM cosignature JOIN checkpoint USING (tenant_id, origin, size)"
                )
                await raw.close()
                for row in rows:
                    note = parse_note(with_signatures(row["note"].encode(), [row["line"]]))
                    at = verify_cosignature(note, VerifierKey.parse(witness.vkey))
                    assert datetime.fromtimestamp(at, UTC) == row["cosigned_at"]
                later = datetime.now(UTC) + timedelta(hours=1)
                pulse = LedgerPulse(
                    database=watch.scene.database,
                    is_quorum=lambda names: "w1" in names,
                    now=lambda: later,
                )
                vitals = await pulse.take(watch.operator)
                assert vitals.size >= 4
                assert vitals.unwitnessed_age_seconds == 0
                assert 3600 <= vitals.unsequenced_age_seconds < math.inf
                alone = LedgerPulse(
                    database=watch.scene.database, is_quorum=lambda _: False, now=lambda: later
                )
                assert (await alone.take(watch.operator)).unwitnessed_age_seconds >= 3600


async def test_before_anything_happened_the_pulse_says_so(fresh: Roles, tmp_path: Path) -> None:
    async with watch_on(fresh, tmp_path) as watch:
        pulse = LedgerPulse(
            database=watch.scene.database,
            is_quorum=lambda _: False,
            now=lambda: datetime.now(UTC),
        )
        vitals = await pulse.take(watch.operator)
    assert (vitals.size, vitals.unwitnessed_age_seconds) == (0, 0.0)
    assert vitals.unsequenced_age_seconds == math.inf
