"""Who keeps the logs of a deployment, and who opens a recovery: built once, by hand."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import app as package
from app.domain.errors import ConfigurationError, LedgerUnavailableError
from app.domain.run import TenantId
from app.keys.erasure_keys import published_erasure_keys
from app.keys.signing_keys import LOG
from app.ledger_assembly import LedgerParts, utc_now
from app.sequencing.anchor_file import AnchorFile
from app.sequencing.anchoring import Anchor, Anchoring
from app.sequencing.checkpoints import CheckpointMaker
from app.sequencing.continuity import Continuity
from app.sequencing.ledger_pulse import LedgerPulse, Vitals
from app.sequencing.log_keeper import KeeperParts, LogKeeper
from app.sequencing.log_names import log_origin
from app.sequencing.log_signer import LogSigner
from app.sequencing.recovery import RecoveryDesk
from app.sequencing.schema_record import Schema
from app.sequencing.signed_history import SignedHistory
from app.sequencing.verified_start import VerifiedStart
from app.sequencing.witness_roster import WitnessRoster, load_witnesses
from app.settings import Settings
from app.storage.database import Database
from app.storage.schema import current_revision, known_revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """The places outside the database, and what has to be closed after them."""

    places: tuple[Anchor, ...]
    roster: WitnessRoster | None

    async def close(self) -> None:
        """End the sessions with witnesses."""
        if self.roster is not None:
            await self.roster.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperOfLogs:
    """A keeper with what has to be closed after it."""

    keeper: LogKeeper
    database: Database
    anchors: Anchors
    parts: LedgerParts
    origin_of: Callable[[bytes], str]

    async def enrol(self) -> None:
        """Enrol this process's writer and let the keeper write, once no anchor has seen more.

        LedgerUnavailableError while one has: nothing of this process may be written then.
        """
        operator = await self.parts.admin_log.operator_log_id()
        loss = await self.keeper.known_loss(operator)
        if loss is not None:
            raise LedgerUnavailableError(f"the ledger lost its end: {loss.reason}")
        await self.parts.enrolment.enrol()
        self.keeper.may_write.set()

    async def close(self) -> None:
        """Close what the keeper used. It does not run any more."""
        await self.anchors.close()
        await self.database.close()


def open_anchors(settings: Settings) -> Anchors:
    """The anchors that these settings name. ConfigurationError."""
    roster = None if settings.witnesses is None else load_witnesses(settings.witnesses)
    places: list[Anchor] = [] if roster is None else [*roster.anchors]
    if settings.anchor_file is not None:
        places.append(AnchorFile(settings.anchor_file))
    return Anchors(places=tuple(places), roster=roster)


def log_keeper(settings: Settings, parts: LedgerParts) -> KeeperOfLogs | None:
    """The keeper, when these settings have the sequencer's login. ConfigurationError."""
    if settings.sequencer_database_url is None:
        return None
    anchors = open_anchors(settings)
    database = Database(settings.sequencer_database_url.reveal(), pool_size=4)
    origin_of = partial(log_origin, settings.deployment)
    keeper = LogKeeper(
        KeeperParts(
            database=database,
            admin_log=parts.admin_log,
            enrolment=parts.logs.book.enrolment_in_force,
            origin_of=origin_of,
            anchoring_of=lambda operator: Anchoring(anchors.places, database, operator),
            checkpoints_of=lambda operator: CheckpointMaker(
                admin_log=parts.admin_log,
                operator=operator,
                signer=_log_signer(parts, operator),
                continuity=_continuity(
                    settings, parts, operator, _verified_start(settings, parts, operator)
                ),
                now=utc_now,
                schema=_schema(settings),
            ),
            appended=parts.ledger.appended,
            monotonic=time.monotonic,
        )
    )
    return KeeperOfLogs(
        keeper=keeper, database=database, anchors=anchors, parts=parts, origin_of=origin_of
    )


def _schema(settings: Settings) -> Schema | None:
    url = settings.database_url
    if url is None:
        return None
    return Schema(
        product=package.__version__,
        needed=known_revision(),
        revision=partial(current_revision, url.reveal()),
    )


def _log_signer(parts: LedgerParts, operator: TenantId) -> LogSigner:
    return LogSigner(
        signing=parts.signing,
        admin_log=parts.admin_log,
        operator=operator,
        recorded=parts.logs.book.rotations,
    )


def _verified_start(settings: Settings, parts: LedgerParts, operator: TenantId) -> VerifiedStart:
    return VerifiedStart(
        settings.ledger_key_dir,
        operator,
        signing_key=lambda: parts.signing.current(LOG),
        public_keys=lambda: [key.public_key for key in parts.signing.every(LOG)],
    )


def _continuity(
    settings: Settings,
    parts: LedgerParts,
    operator: TenantId,
    start: VerifiedStart | None = None,
) -> Continuity:
    return Continuity(
        SignedHistory(
            admin_log=parts.admin_log,
            operator=operator,
            enrolment=parts.enrolment_keys,
            erasure_keys=partial(published_erasure_keys, settings.ledger_key_dir),
            opened=_log_signer(parts, operator).opened,
            changes=parts.logs.book.changes,
        ),
        start,
    )


def vitals_of(parts: LedgerParts, keeper: KeeperOfLogs | None) -> Callable[[], Awaitable[Vitals]]:
    """Takes the ledger's pulse. Without witnesses no quorum is ever there."""
    roster = None if keeper is None else keeper.anchors.roster
    pulse = LedgerPulse(
        database=parts.database,
        is_quorum=(lambda _: False) if roster is None else roster.policy.satisfied,
        now=utc_now,
    )

    async def take() -> Vitals:
        return await pulse.take(await parts.admin_log.operator_log_id())

    return take


@asynccontextmanager
async def recovery_desk(settings: Settings, parts: LedgerParts) -> AsyncIterator[RecoveryDesk]:
    """What opens a recovery, with the owner's login. ConfigurationError without it."""
    if settings.owner_database_url is None:
        raise ConfigurationError("a recovery needs MESHFLOW_OWNER_DATABASE_URL")
    owner = Database(settings.owner_database_url.reveal(), pool_size=2)
    anchors = open_anchors(settings)
    try:
        operator = await parts.admin_log.operator_log_id()
        yield RecoveryDesk(
            owner=owner,
            admin_log=parts.admin_log,
            anchoring=Anchoring(anchors.places, owner, operator),
            continuity=_continuity(settings, parts, operator),
            operator=operator,
            start=_verified_start(settings, parts, operator),
        )
    finally:
        await anchors.close()
        await owner.close()
