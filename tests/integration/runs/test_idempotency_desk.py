"""Keys at the turn of the day, between clocks that do not agree, after a crash, and a day later."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from app.domain.errors import KeyBusyError, KeyReusedError, KeyTakenError
from app.domain.idempotency import Begun, Outcome
from app.domain.run import Caller, Scope
from app.keys.daily_digests import DailyDigests
from app.keys.key_store import FileKeyStore
from app.runs.idempotency_desk import IdempotencyDesk, SentRequest
from app.storage.companions import TakenKey
from app.storage.idempotency_store import LEASE_SECONDS, IdempotencyStore
from tests.integration.storage.append_scene import Author, Scene, scene_on
from tests.support.databases import Roles, connect

pytestmark = pytest.mark.anyio

MIDNIGHT = datetime(2026, 11, 26, tzinfo=UTC)
BEFORE, AFTER = MIDNIGHT - timedelta(seconds=1), MIDNIGHT + timedelta(seconds=1)
SENT = SentRequest(key="k", method="POST", path="/v1/runs", query=b"", body=b'{"task":"x"}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A deployment: its ledger, its keys, and desks of processes with clocks of their own."""

    scene: Scene
    store: IdempotencyStore
    keys: FileKeyStore
    caller: Caller
    superuser: asyncpg.Connection

    def desk(self, now: datetime) -> IdempotencyDesk:
        return IdempotencyDesk(store=self.store, digests=DailyDigests(self.keys), now=lambda: now)

    async def begin_run(
        self, desk: IdempotencyDesk, sent: SentRequest = SENT, scene: Scene | None = None
    ) -> Author:
        """A run that takes its key with its first record."""
        author = (scene or self.scene).author()
        claim = desk.claim(self.caller, sent)
        taken = TakenKey(claim=claim, status=202)
        await (scene or self.scene).store.append(
            author.tenant_id, author.run_id, author.seal(), [author.new_run(), taken]
        )
        return author

    async def age(self, seconds: int) -> None:
        """Let so much time pass for every key."""
        await self.superuser.execute(
            "UPDATE idempotency SET created_at = created_at - make_interval(secs => $1)", seconds
        )

    async def keys_in_use(self) -> int:
        return int(await self.superuser.fetchval("SELECT count(*) FROM idempotency"))


@pytest.fixture
async def place(roles: Roles, tmp_path: Path) -> AsyncIterator[Place]:
    async with _placed(roles, tmp_path) as made:
        yield made


@asynccontextmanager
async def _placed(roles: Roles, directory: Path) -> AsyncIterator[Place]:
    superuser = await connect(roles.superuser)
    await superuser.execute("DELETE FROM idempotency")
    async with scene_on(roles) as scene:
        yield Place(
            scene=scene,
            store=IdempotencyStore(scene.database),
            keys=FileKeyStore(directory / "keys", os.urandom),
            caller=Caller(
                tenant_id=scene.tenant_id,
                tenant="acme",
                scopes=frozenset({Scope.RUN}),
                fingerprint="0" * 16,
            ),
            superuser=superuser,
        )
    await superuser.close()


@pytest.mark.parametrize(("first", "then"), [(BEFORE, AFTER), (AFTER, BEFORE)])
async def test_a_key_of_the_other_side_of_midnight_is_known(
    place: Place, first: datetime, then: datetime
) -> None:
    one, two = place.desk(first), place.desk(then)
    author = await place.begin_run(one)
    known = await two.known(author.tenant_id, two.claim(place.caller, SENT))
    assert known == Outcome(status=202, run_id=author.run_id)
    with pytest.raises(KeyTakenError):
        await place.begin_run(two)
    other = replace(SENT, body=b"other")
    with pytest.raises(KeyReusedError):
        await two.known(author.tenant_id, two.claim(place.caller, other))


@pytest.mark.parametrize("others", [(BEFORE, AFTER), (AFTER, BEFORE)])
async def test_twins_on_both_sides_of_midnight_make_one_run(
    place: Place, roles: Roles, others: tuple[datetime, datetime]
) -> None:
    async with scene_on(roles) as elsewhere:
        scenes = (place.scene, elsewhere, place.scene, elsewhere)
        for number in range(20):
            sent = replace(SENT, key=f"twin {number}")
            made = await asyncio.gather(
                *(
                    place.begin_run(place.desk(now), sent, scene)
                    for now, scene in zip(others * 2, scenes, strict=True)
                ),
                return_exceptions=True,
            )
            begun = [found for found in made if isinstance(found, Author)]
            refused = [found for found in made if not isinstance(found, Author)]
            assert all(isinstance(error, KeyBusyError) for error in refused), refused
            assert len(begun) <= 1
            if not begun:  # each was told that the other was first
                await place.begin_run(place.desk(others[0]), sent)
    assert await place.keys_in_use() == 20


async def test_a_key_in_a_transaction_that_is_not_over_is_busy_on_either_side_of_midnight(
    place: Place,
) -> None:
    """Held in the database by nobody's fault: the one that comes second does not wait."""
    claim = place.desk(BEFORE).claim(place.caller, SENT)
    async with place.superuser.transaction():
        held = await place.superuser.fetchval(
            "SELECT idempotency_held($1, $2)", place.caller.tenant_id, list(claim.keys)
        )
        assert held is True
        for now in (BEFORE, AFTER):
            with pytest.raises(KeyBusyError):
                await place.begin_run(place.desk(now))
            desk = place.desk(now)
            with pytest.raises(KeyBusyError):
                await desk.begin(place.caller.tenant_id, desk.claim(place.caller, SENT))
    assert await place.keys_in_use() == 0
    await place.begin_run(place.desk(AFTER))


async def test_a_run_that_is_not_written_takes_no_key(place: Place) -> None:
    desk = place.desk(BEFORE)
    author = await place.begin_run(desk)
    claim = desk.claim(place.caller, replace(SENT, key="another"))
    taken = TakenKey(claim=claim, status=202)
    stranger = replace(author, tenant_id=author.tenant_id)
    with pytest.raises(Exception, match="another owner"):
        # The run is there already: its insertion fails, and with it all that came with it.
        await place.scene.store.append(
            stranger.tenant_id, stranger.run_id, stranger.seal(), [stranger.new_run(), taken]
        )
    assert await place.keys_in_use() == 1


async def test_others_that_are_written_together_with_a_used_key_are_written(place: Place) -> None:
    desk = place.desk(BEFORE)
    await place.begin_run(desk)
    sents = [SENT, *(replace(SENT, key=f"good {number}") for number in range(8)), SENT]
    made = await asyncio.gather(
        *(place.begin_run(desk, sent) for sent in sents), return_exceptions=True
    )
    assert [isinstance(found, Author) for found in made] == [False, *[True] * 8, False]


async def test_a_first_request_that_nobody_ended_gives_way_to_its_repetition(place: Place) -> None:
    desk, tenant_id = place.desk(BEFORE), place.caller.tenant_id
    claim = desk.claim(place.caller, SENT)
    assert isinstance(await desk.begin(tenant_id, claim), Begun)
    with pytest.raises(KeyBusyError):
        await desk.begin(tenant_id, claim)
    await place.age(LEASE_SECONDS + 1)
    other = desk.claim(place.caller, replace(SENT, body=b"other"))
    with pytest.raises(KeyReusedError):
        await desk.begin(tenant_id, other)
    late = place.desk(AFTER)
    begun = await late.begin(tenant_id, late.claim(place.caller, SENT))
    assert isinstance(begun, Begun)
    await late.end(tenant_id, begun, Outcome(status=202, told="ers_1"))
    assert await desk.begin(tenant_id, claim) == Outcome(status=202, told="ers_1")


async def test_a_request_that_did_nothing_leaves_its_key_free(place: Place) -> None:
    desk, tenant_id = place.desk(BEFORE), place.caller.tenant_id
    begun = await desk.begin(tenant_id, desk.claim(place.caller, SENT))
    assert isinstance(begun, Begun)
    await desk.end(tenant_id, begun, None)
    assert await place.keys_in_use() == 0
    await place.begin_run(desk)


async def test_after_a_day_a_key_is_free_and_its_row_and_its_digests_key_are_gone(
    place: Place,
) -> None:
    desk = place.desk(BEFORE)
    first = await place.begin_run(desk)
    await place.age(24 * 3600 - 60)
    assert await desk.trim() == 0
    assert await desk.known(first.tenant_id, desk.claim(place.caller, SENT)) is not None
    await place.age(61)
    assert await desk.known(first.tenant_id, desk.claim(place.caller, SENT)) is None
    second = await place.begin_run(desk)
    assert second.run_id != first.run_id
    assert await place.keys_in_use() == 1
    await place.age(24 * 3600 + 1)
    later = place.desk(BEFORE + timedelta(days=3, hours=2))
    assert await later.trim() == 1
    assert await place.keys_in_use() == 0
    assert place.keys.kek_ids("digest/") == ()


async def test_the_keys_of_yesterday_stay_until_they_count_no_more(place: Place) -> None:
    place.desk(BEFORE).claim(place.caller, SENT)
    log = place.caller.tenant_id.hex
    days = tuple(f"digest/{log}/{day}" for day in ("20261124", "20261125", "20261126"))
    assert place.keys.kek_ids("digest/") == days
    await place.desk(MIDNIGHT + timedelta(minutes=59)).trim()
    assert place.keys.kek_ids("digest/") == days
    await place.desk(MIDNIGHT + timedelta(minutes=61)).trim()
    assert place.keys.kek_ids("digest/") == days[1:]
