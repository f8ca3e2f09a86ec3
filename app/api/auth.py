"""Who is asking: reads the two key headers and gives the `Caller`, or 401.

Threat: Unauthorised API access
"""

from collections.abc import Collection, Mapping
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException
from starlette.types import Scope as AsgiScope

from app.domain.errors import ForbiddenError, LedgerUnavailableError
from app.domain.run import Caller, Scope, TenantId
from app.keys.key_ring import AuthFailure, KeyGrant, KeySource

GRANT = "meshflow.grant"  # in the ASGI scope, where no client can write: what the keys proved


class Doorkeeper:
    """Recognises callers. Holds digests of keys only, and the ids of their tenants."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._tenants: dict[str, TenantId] = {}

    @property
    def source(self) -> KeySource:
        """Where the keys come from."""
        return self._source

    def learn(self, tenants: Mapping[str, TenantId]) -> None:
        """The ids of tenants, once the database has given them."""
        self._tenants.update(tenants)

    def known_tenants(self) -> Mapping[str, TenantId]:
        """The ids that are in use."""
        return dict(self._tenants)

    def forget(self, names: Collection[str]) -> None:
        """Ids that are none any more; their keys are refused until the new ones are known."""
        for name in names:
            self._tenants.pop(name, None)

    def unknown_tenants(self) -> frozenset[str]:
        """Tenants of keys whose id is not known yet."""
        return self._source.ring.tenants - self._tenants.keys()

    def grant(self, scope: AsgiScope) -> KeyGrant | AuthFailure:
        """What the request's headers prove. A header sent twice proves nothing."""
        authorization = _values(scope, b"authorization")
        api_key = _values(scope, b"x-api-key")
        if len(authorization) > 1 or len(api_key) > 1:
            return AuthFailure.MALFORMED
        return self._source.ring.authenticate(
            authorization[0] if authorization else None, api_key[0] if api_key else None
        )

    def caller(self, grant: KeyGrant) -> Caller:
        """The caller behind a grant. LedgerUnavailableError before the tenant is known."""
        tenant_id = self._tenants.get(grant.tenant)
        if tenant_id is None:
            raise LedgerUnavailableError("the tenant of this key is not known yet")
        return Caller(
            tenant_id=tenant_id,
            tenant=grant.tenant,
            scopes=grant.scopes,
            fingerprint=grant.fingerprint,
        )


def _values(scope: AsgiScope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def caller_of(request: Request) -> Caller:
    """The caller, or 401. A request that did not come through the guard is judged here."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    grant = request.scope.get(GRANT) or doorkeeper.grant(request.scope)
    if not isinstance(grant, KeyGrant):
        raise HTTPException(401)
    return doorkeeper.caller(grant)


async def authenticated(request: Request) -> Caller:
    """`caller_of` as the dependency that stands before every route but a few."""
    return caller_of(request)


def still_holds(request: Request, caller: Caller) -> bool:
    """Whether the key of a request whose answer takes long is in force as it was at its start."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    grant = doorkeeper.grant(request.scope)
    return isinstance(grant, KeyGrant) and doorkeeper.caller(grant) == caller


CallerDep = Annotated[Caller, Depends(authenticated)]


def require(caller: Caller, *scopes: Scope) -> None:
    """ForbiddenError unless the key has one of `scopes`."""
    if not caller.scopes & set(scopes):
        raise ForbiddenError(scopes[0].value)
