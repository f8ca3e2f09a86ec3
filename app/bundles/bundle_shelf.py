"""Gives each run the policy that it is judged by: pinned as it begins, found again by its digest.

A version never changes, so what was read once is kept. Which one is in force is looked up once a
second for each tenant: what is activated holds for every run that begins a moment later, in every
process. A policy that cannot be read is no policy: nothing is let in under it.

Threat: Privilege escalation via tool calls
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from app.bundles.bundle_loading import BundleLoader, LoadedPolicy
from app.bundles.policy_document import JOINT_ID, PolicyDocument, canonical_document, digest_of
from app.domain.errors import NotFoundError, PolicyRefusedError, RefusedPart
from app.domain.mode import Mode, may_tighten
from app.domain.policy import PolicyVersion
from app.domain.run import TenantId
from app.policy.bundle import PolicyBundle
from app.storage.policy_store import PolicyStore

DEFAULT_POLICY: Final = "default"
JOINT: Final = "+"  # no policy that somebody uploads has such a name
_KEPT: Final = 256
_FRESH_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JointPolicy:
    """Two policies as one: the tenant's, and the one a caller named.

    `new_id`: how it is to be kept, when it is not yet.
    """

    bundle: PolicyBundle
    canonical: bytes
    new_id: str | None = None


class BundleShelf:
    """Policies of all tenants, ready to decide by. `built_in` stands where none was activated."""

    def __init__(
        self,
        store: PolicyStore,
        loader: BundleLoader,
        built_in: PolicyBundle,
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._loader = loader
        self._built_in = built_in
        self._monotonic = monotonic
        self._read: OrderedDict[tuple[TenantId, str], LoadedPolicy] = OrderedDict()
        self._in_force: dict[tuple[TenantId, str], tuple[float, LoadedPolicy]] = {}

    @property
    def built_in(self) -> LoadedPolicy:
        """What is in force where a tenant has activated nothing."""
        document = PolicyDocument(id=DEFAULT_POLICY, default_mode=self._built_in.default_mode)
        canonical = canonical_document(document)
        return LoadedPolicy(document=document, canonical=canonical, bundle=self._built_in)

    async def in_force(self, tenant_id: TenantId, policy_id: str = DEFAULT_POLICY) -> LoadedPolicy:
        """The policy of this id that is in force, at most a second ago.

        NotFoundError for an id of which none is, but for the tenant's own: then what is built in.
        PolicyRefusedError when it is of a form that this software cannot read.
        """
        place, now = (tenant_id, policy_id), self._monotonic()
        known = self._in_force.get(place)
        if known is not None and now - known[0] < _FRESH_SECONDS:
            return known[1]
        found = await self._store.in_force(tenant_id, policy_id)
        if found is None and policy_id != DEFAULT_POLICY:
            raise NotFoundError("no such policy is in force")
        loaded = self.built_in if found is None else self._loaded(tenant_id, found)
        if len(self._in_force) >= _KEPT:
            self._in_force.clear()
        self._in_force[place] = (now, loaded)
        return loaded

    def look_again(self, tenant_id: TenantId, policy_id: str) -> None:
        """This process has changed what is in force."""
        self._in_force.pop((tenant_id, policy_id), None)

    async def by_digest(self, tenant_id: TenantId, digest: str) -> PolicyBundle:
        """The policy that a run began under. NotFoundError, PolicyRefusedError."""
        if digest == self._built_in.digest:
            return self._built_in
        known = self._read.get((tenant_id, digest))
        if known is not None:
            self._read.move_to_end((tenant_id, digest))
            return known.bundle
        found = await self._store.by_digest(tenant_id, digest)
        if found is None:
            raise NotFoundError("no policy of the tenant has this digest")
        if JOINT in found.policy_id:
            return await self._joint(tenant_id, found)
        return self._loaded(tenant_id, found).bundle

    async def for_submission(self, tenant_id: TenantId, named: str | None) -> JointPolicy:
        """The tenant's policy, and beside it the one that a caller names, which can only object.

        NotFoundError when nothing of that name is in force; PolicyRefusedError.
        """
        own = await self.in_force(tenant_id)
        if named is None or named == DEFAULT_POLICY:
            return JointPolicy(bundle=own.bundle, canonical=own.canonical)
        other = await self.in_force(tenant_id, named)
        canonical = _joint_bytes(named, own.bundle.digest, other.bundle.digest)
        digest = digest_of(canonical)
        known = await self._store.by_digest(tenant_id, digest)
        version = 1 if known is None else known.version
        new_id = _joint_id(named) if known is None else None
        bundle = _side_by_side(own.bundle, other.bundle, digest, version)
        return JointPolicy(bundle=bundle, canonical=canonical, new_id=new_id)

    def _loaded(self, tenant_id: TenantId, found: PolicyVersion) -> LoadedPolicy:
        known = self._read.get((tenant_id, found.digest))
        if known is None:
            known = self._loader.stored(found.body, found.version)
            self._read[tenant_id, found.digest] = known
            if len(self._read) > _KEPT:
                self._read.popitem(last=False)
        return known

    async def _joint(self, tenant_id: TenantId, found: PolicyVersion) -> PolicyBundle:
        try:
            first, second = (str(digest) for digest in json.loads(found.body)["all_of"])
        except (ValueError, KeyError, TypeError):
            part = RefusedPart(pointer="", reason="this names no two policies")
            raise PolicyRefusedError([part]) from None
        own = await self.by_digest(tenant_id, first)
        other = await self.by_digest(tenant_id, second)
        return _side_by_side(own, other, found.digest, found.version)


def _joint_id(named: str) -> str:
    """How the tenant's policy together with another one is called."""
    return f"{DEFAULT_POLICY}{JOINT}{named}"


def _joint_bytes(named: str, *digests: str) -> bytes:
    form = {"all_of": [*digests], "id": _joint_id(named)}
    return json.dumps(form, sort_keys=True, separators=(",", ":")).encode("ascii")


def _side_by_side(
    own: PolicyBundle, other: PolicyBundle, digest: str, version: int
) -> PolicyBundle:
    """The first, with the second beside it. Only the first says which hosts are named."""
    return replace(
        own,
        policy_id=JOINT_ID,
        version=version,
        digest=digest,
        default_mode=_tighter(own.default_mode, other.default_mode),
        also=other,
    )


def _tighter(one: Mode, other: Mode) -> Mode:
    return other if may_tighten(one, other) else one
