"""Which policy a run is judged by: pinned as it is submitted, and the same wherever it goes on.

A caller's policy stands beside the tenant's and can only object. A policy that is not there, or
that this software cannot read, lets nothing in: there is no other one to fall back on.

Threat: Privilege escalation via tool calls
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from app.bundles.bundle_shelf import BundleShelf
from app.bundles.policy_desk import PolicyDesk
from app.domain.errors import InvalidSubmissionError, NotFoundError
from app.domain.run import Caller, TenantId
from app.policy.bundle import PolicyBundle
from app.policy.gate import DascGate

_KEPT: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPolicyParts:
    """What policies of runs come from. `gate`: with the checks, under what is built in."""

    gate: DascGate
    shelf: BundleShelf
    desk: PolicyDesk


class RunPolicies:
    """Gives gates to runs; those of one policy share one."""

    def __init__(self, parts: RunPolicyParts) -> None:
        self._parts = parts
        self._gates: OrderedDict[str, DascGate] = OrderedDict()

    async def of_submission(self, caller: Caller, named: str | None) -> DascGate:
        """The gate for a run that is about to begin, durable as far as it had to be made.

        InvalidSubmissionError when no policy of that name is in force; PolicyRefusedError.
        """
        try:
            joint = await self._parts.shelf.for_submission(caller.tenant_id, named)
        except NotFoundError:
            raise InvalidSubmissionError("/policy", "no such policy is in force") from None
        await self._parts.desk.keep(caller, joint)
        return self._gate(joint.bundle)

    async def of_run(self, tenant_id: TenantId, digest: str) -> DascGate:
        """The gate of a run that began under this policy. NotFoundError, PolicyRefusedError."""
        if digest == self._parts.gate.policy.digest:
            return self._parts.gate
        return self._gate(await self._parts.shelf.by_digest(tenant_id, digest))

    def _gate(self, bundle: PolicyBundle) -> DascGate:
        if bundle.digest == self._parts.gate.policy.digest:
            return self._parts.gate
        gate = self._gates.get(bundle.digest)
        if gate is None:
            gate = self._gates[bundle.digest] = self._parts.gate.under(bundle)
            if len(self._gates) > _KEPT:
                self._gates.popitem(last=False)
        return gate
