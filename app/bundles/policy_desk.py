"""Takes in a tenant's policies, and brings them into force: what loosens, by two keys.

Every change is a record of the tenant's log in the transaction that makes it.

Threat: Privilege escalation via tool calls
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from app.administration.admin_log import AdminLog
from app.bundles.bundle_loading import BundleLoader, LoadedPolicy
from app.bundles.bundle_shelf import JOINT, BundleShelf, JointPolicy
from app.bundles.loosening import looser_parts
from app.bundles.policy_document import PolicyDocument
from app.bundles.simulation import Simulation
from app.domain.errors import (
    IllegalTransitionError,
    NotFoundError,
    PreconditionFailedError,
    SecondPersonError,
)
from app.domain.policy import (
    Activation,
    ActivationId,
    ActivationState,
    PolicyVersion,
    public_activation_id,
)
from app.domain.run import Caller, JsonObject, TenantId
from app.domain.verdict import is_weaker
from app.policy.bundle import PolicyBundle
from app.storage.policy_changes import ActivatePolicy, ConfirmPolicy, PolicyChange, PutPolicy
from app.storage.policy_store import PolicyStore

WRITTEN, ACTIVATED = "policy.written", "policy.activated"
REQUESTED, FORCED = "policy.requested", "policy.forced"
_LOOK_BACK: Final = timedelta(days=7)
_MOST_CODES: Final = 64
IsMeant = Callable[[int], bool]


class History(Protocol):
    """Whoever can read the questions that were really asked."""

    async def replay(
        self, tenant_id: TenantId, simulation: Simulation, since: datetime, until: datetime
    ) -> bool:
        """Put them to a simulation; whether those were all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDeskParts:
    """What the desk is built from. `simulation`: of two policies, with the gate's own `decide`."""

    store: PolicyStore
    shelf: BundleShelf
    loader: BundleLoader
    admin_log: AdminLog
    simulation: Callable[[PolicyBundle, PolicyBundle], Simulation]
    history: History
    now: Callable[[], datetime]
    new_id: Callable[[], UUID]


class PolicyDesk:
    """The policies of all tenants; a caller reaches those of its own."""

    def __init__(self, parts: PolicyDeskParts) -> None:
        self._parts = parts

    async def put(
        self, caller: Caller, policy_id: str, document: PolicyDocument, is_meant: IsMeant
    ) -> tuple[PolicyVersion, bool]:
        """The version that this is, and whether it is a new one. It comes into force by activation.

        PolicyRefusedError; PreconditionFailedError when another version is the newest than meant.
        """
        parts, tenant_id = self._parts, caller.tenant_id
        loaded = parts.loader.taken(document, policy_id)
        known = await parts.store.by_digest(tenant_id, loaded.bundle.digest)
        if known is not None:
            return known, False  # nothing is changed, whatever was meant
        newest = await parts.store.newest_of(tenant_id, policy_id)
        if not is_meant(0 if newest is None else newest.version):
            raise PreconditionFailedError
        version = 1 if newest is None else newest.version + 1
        made = PutPolicy(
            policy_id=policy_id,
            version=version,
            digest=loaded.bundle.digest,
            body=loaded.canonical,
            by=caller.actor,
            at=parts.now(),
        )
        note: JsonObject = {"policy": policy_id, "version": version, "digest": made.digest}
        await self._record(caller, WRITTEN, note, made)
        return _stored(made), True

    async def keep(self, caller: Caller, joint: JointPolicy) -> None:
        """Store two policies as one, so that whoever takes a run over finds them by the digest."""
        if joint.new_id is None:
            return
        bundle, now = joint.bundle, self._parts.now()
        made = PutPolicy(
            policy_id=joint.new_id,
            version=await self._next_version(caller.tenant_id, joint.new_id),
            digest=bundle.digest,
            body=joint.canonical,
            by=caller.actor,
            at=now,
        )
        note: JsonObject = {
            "policy": joint.new_id,
            "version": made.version,
            "digest": made.digest,
        }
        try:
            await self._record(caller, WRITTEN, note, made)
        except PreconditionFailedError:
            # Another run of a moment ago brought the same one.
            if await self._parts.store.by_digest(caller.tenant_id, bundle.digest) is None:
                raise

    async def all_of(self, tenant_id: TenantId) -> list[PolicyVersion]:
        """The newest version of each policy that somebody uploaded."""
        found = await self._parts.store.newest(tenant_id)
        return [version for version in found if JOINT not in version.policy_id]

    async def newest(self, tenant_id: TenantId, policy_id: str) -> PolicyVersion:
        """The newest version of one. NotFoundError."""
        return _found(await self._parts.store.newest_of(tenant_id, policy_id))

    async def version(self, tenant_id: TenantId, policy_id: str, version: int) -> PolicyVersion:
        """One version. NotFoundError."""
        return _found(await self._parts.store.version(tenant_id, policy_id, version))

    async def versions(
        self, tenant_id: TenantId, policy_id: str, before: int | None, limit: int
    ) -> list[PolicyVersion]:
        """Versions, the newest first. NotFoundError when there is none at all."""
        found = await self._parts.store.versions(tenant_id, policy_id, before, limit)
        if not found and before is None:
            raise NotFoundError("no such policy")
        return found

    async def activations(self, tenant_id: TenantId, policy_id: str) -> list[Activation]:
        """What became of each wish to bring a version into force, the newest first."""
        await self.newest(tenant_id, policy_id)
        return await self._parts.store.activations(tenant_id, policy_id)

    async def activation(
        self, tenant_id: TenantId, policy_id: str, activation_id: ActivationId
    ) -> Activation:
        """One of them. NotFoundError."""
        found = await self._parts.store.activations(tenant_id, policy_id, activation_id)
        if not found:
            raise NotFoundError("no such activation")
        return found[0]

    async def activate(
        self, caller: Caller, policy_id: str, version: int | None, *, is_forced: bool = False
    ) -> Activation:
        """Bring a version into force, or ask a second key to: then it is pending.

        `is_forced`: the operator's word, which needs no second key and is recorded as what it is.
        NotFoundError; PreconditionFailedError when what is in force changed meanwhile.
        """
        parts, tenant_id = self._parts, caller.tenant_id
        if version is None:
            found = await self.newest(tenant_id, policy_id)
        else:
            found = await self.version(tenant_id, policy_id, version)
        before = await self._in_force(tenant_id, policy_id)
        loosened = await self.loosened(tenant_id, before, self._loaded(found))
        change = ActivatePolicy(
            activation_id=parts.new_id(),
            policy_id=policy_id,
            version=found.version,
            base=await self._base(tenant_id, policy_id),
            needs_second=bool(loosened) and not is_forced,
            loosened=loosened,
            by=caller.actor,
            at=parts.now(),
        )
        kind = FORCED if is_forced else REQUESTED if change.needs_second else ACTIVATED
        activation_id = ActivationId(change.activation_id)
        note = _note(activation_id, policy_id, found, change.base, loosened)
        await self._record(caller, kind, note, change)
        return await self.activation(tenant_id, policy_id, activation_id)

    async def confirm(
        self, caller: Caller, policy_id: str, activation_id: ActivationId
    ) -> Activation:
        """Bring into force what another key asked for.

        SecondPersonError for the key that asked; IllegalTransitionError when nothing waits any
        more; PreconditionFailedError when what is in force changed since it was asked for.
        """
        parts, tenant_id = self._parts, caller.tenant_id
        found = await self.activation(tenant_id, policy_id, activation_id)
        if found.state is not ActivationState.PENDING:
            raise IllegalTransitionError("this activation waits for nobody")
        if found.requested_by == caller.actor:
            raise SecondPersonError
        # Whatever comes into force ends all that waits: what it was judged against still stands.
        version = await self.version(tenant_id, policy_id, found.version)
        base = await self._base(tenant_id, policy_id)
        change = ConfirmPolicy(
            activation_id=activation_id,
            policy_id=policy_id,
            base=base,
            by=caller.actor,
            at=parts.now(),
        )
        note = _note(activation_id, policy_id, version, base, [*found.loosened])
        await self._record(caller, ACTIVATED, {**note, "requested_by": found.requested_by}, change)
        return await self.activation(tenant_id, policy_id, activation_id)

    async def loosened(
        self, tenant_id: TenantId, before: LoadedPolicy, after: LoadedPolicy
    ) -> list[str]:
        """In what the second lets more pass: its parts, golden cases, and what was really asked."""
        parts, now = self._parts, self._parts.now()
        codes = looser_parts(before.document, after.document)
        for case in (*before.bundle.golden, *after.bundle.golden):
            asked = parts.simulation(before.bundle, after.bundle)
            if is_weaker(*reversed(asked.answers(case.question))):
                codes.append(f"golden:{case.name}")
        replayed = parts.simulation(before.bundle, after.bundle)
        await parts.history.replay(tenant_id, replayed, now - _LOOK_BACK, now)
        if replayed.tally.weakened:
            codes.append(f"decisions:{replayed.tally.weakened}")
        return codes[:_MOST_CODES]

    async def _in_force(self, tenant_id: TenantId, policy_id: str) -> LoadedPolicy:
        found = await self._parts.store.in_force(tenant_id, policy_id)
        return self._parts.shelf.built_in if found is None else self._loaded(found)

    async def _base(self, tenant_id: TenantId, policy_id: str) -> str | None:
        found = await self._parts.store.in_force(tenant_id, policy_id)
        return None if found is None else found.digest

    async def _next_version(self, tenant_id: TenantId, policy_id: str) -> int:
        newest = await self._parts.store.newest_of(tenant_id, policy_id)
        return 1 if newest is None else newest.version + 1

    def _loaded(self, found: PolicyVersion) -> LoadedPolicy:
        return self._parts.loader.stored(found.body, found.version)

    async def _record(
        self, caller: Caller, kind: str, note: JsonObject, change: PolicyChange
    ) -> None:
        parts = self._parts
        try:
            await parts.admin_log.append(caller.tenant_id, kind, note, [change], actor=caller.actor)
        except IllegalTransitionError:
            raise PreconditionFailedError from None
        parts.shelf.look_again(caller.tenant_id, change.policy_id)


def _note(
    activation_id: ActivationId,
    policy_id: str,
    version: PolicyVersion,
    base: str | None,
    loosened: list[str],
) -> JsonObject:
    return {
        "activation": public_activation_id(activation_id),
        "policy": policy_id,
        "version": version.version,
        "digest": version.digest,
        "before": base,
        "loosened": [*loosened],
    }


def _found(version: PolicyVersion | None) -> PolicyVersion:
    if version is None:
        raise NotFoundError("no such policy")
    return version


def _stored(made: PutPolicy) -> PolicyVersion:
    return PolicyVersion(
        policy_id=made.policy_id,
        version=made.version,
        digest=made.digest,
        body=made.body,
        author=made.by,
        created_at=made.at,
    )
