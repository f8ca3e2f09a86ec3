"""Reads a tenant's policies; they are changed only by what a record of its log brings with it.

Threat: Privilege escalation via tool calls
"""

from uuid import UUID

import asyncpg

from app.domain.policy import Activation, ActivationId, ActivationState, PolicyVersion
from app.domain.run import TenantId
from app.storage.database import Database

_NEWEST = """
SELECT DISTINCT ON (policy_id) * FROM policy_version
WHERE tenant_id = $1 AND ($2::text IS NULL OR policy_id = $2)
ORDER BY policy_id, version DESC
"""
_VERSIONS = """
SELECT * FROM policy_version
WHERE tenant_id = $1 AND policy_id = $2 AND ($3::bigint IS NULL OR version < $3)
ORDER BY version DESC LIMIT $4
"""
_VERSION = "SELECT * FROM policy_version WHERE tenant_id = $1 AND policy_id = $2 AND version = $3"
_BY_DIGEST = "SELECT * FROM policy_version WHERE tenant_id = $1 AND digest = $2"
_IN_FORCE = """
SELECT p.* FROM policy_activation a JOIN policy_version p
  ON p.tenant_id = a.tenant_id AND p.policy_id = a.policy_id AND p.version = a.version
WHERE a.tenant_id = $1 AND a.policy_id = $2 AND a.state = 'active'
"""
_ACTIVATIONS = """
SELECT a.*, p.digest FROM policy_activation a JOIN policy_version p
  ON p.tenant_id = a.tenant_id AND p.policy_id = a.policy_id AND p.version = a.version
WHERE a.tenant_id = $1 AND a.policy_id = $2 AND ($3::uuid IS NULL OR a.activation_id = $3)
ORDER BY a.activation_id DESC LIMIT $4
"""
_STATES = """
SELECT a.*, p.digest FROM policy_activation a JOIN policy_version p
  ON p.tenant_id = a.tenant_id AND p.policy_id = a.policy_id AND p.version = a.version
WHERE a.tenant_id = $1 AND a.state <> 'superseded' ORDER BY a.activation_id
"""


class PolicyStore:
    """Policies of all tenants, each tenant's within its own view."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, tenant_id: TenantId) -> list[PolicyVersion]:
        """The newest version of each policy, by id."""
        async with self._database.snapshot(tenant_id) as raw:
            return [_version(row) for row in await raw.fetch(_NEWEST, tenant_id, None)]

    async def newest_of(self, tenant_id: TenantId, policy_id: str) -> PolicyVersion | None:
        """The newest version of one."""
        async with self._database.snapshot(tenant_id) as raw:
            row = await raw.fetchrow(_NEWEST, tenant_id, policy_id)
        return None if row is None else _version(row)

    async def versions(
        self, tenant_id: TenantId, policy_id: str, before: int | None, limit: int
    ) -> list[PolicyVersion]:
        """Versions of one, the newest first."""
        async with self._database.snapshot(tenant_id) as raw:
            rows = await raw.fetch(_VERSIONS, tenant_id, policy_id, before, limit)
        return [_version(row) for row in rows]

    async def version(
        self, tenant_id: TenantId, policy_id: str, version: int
    ) -> PolicyVersion | None:
        """One version."""
        async with self._database.snapshot(tenant_id) as raw:
            row = await raw.fetchrow(_VERSION, tenant_id, policy_id, version)
        return None if row is None else _version(row)

    async def by_digest(self, tenant_id: TenantId, digest: str) -> PolicyVersion | None:
        """The version with this digest."""
        async with self._database.snapshot(tenant_id) as raw:
            row = await raw.fetchrow(_BY_DIGEST, tenant_id, digest)
        return None if row is None else _version(row)

    async def in_force(self, tenant_id: TenantId, policy_id: str) -> PolicyVersion | None:
        """The version of a policy that is in force; None: what is built in is."""
        async with self._database.snapshot(tenant_id) as raw:
            row = await raw.fetchrow(_IN_FORCE, tenant_id, policy_id)
        return None if row is None else _version(row)

    async def activations(
        self,
        tenant_id: TenantId,
        policy_id: str,
        activation_id: ActivationId | None = None,
        limit: int = 200,
    ) -> list[Activation]:
        """Activations of a policy, or one of them, the newest first."""
        async with self._database.snapshot(tenant_id) as raw:
            rows = await raw.fetch(_ACTIVATIONS, tenant_id, policy_id, activation_id, limit)
        return [_activation(row) for row in rows]

    async def open_activations(self, tenant_id: TenantId) -> list[Activation]:
        """What is in force of all policies, and what waits for a second key."""
        async with self._database.snapshot(tenant_id) as raw:
            return [_activation(row) for row in await raw.fetch(_STATES, tenant_id)]


def _version(row: asyncpg.Record) -> PolicyVersion:
    return PolicyVersion(
        policy_id=row["policy_id"],
        version=row["version"],
        digest=row["digest"],
        body=row["body"],
        author=row["author"],
        created_at=row["created_at"],
    )


def _activation(row: asyncpg.Record) -> Activation:
    return Activation(
        activation_id=ActivationId(UUID(bytes=row["activation_id"].bytes)),
        policy_id=row["policy_id"],
        version=row["version"],
        digest=row["digest"],
        state=ActivationState(row["state"]),
        needs_second=row["needs_second"],
        loosened=tuple(row["loosened"]),
        requested_by=row["requested_by"],
        requested_at=row["requested_at"],
        confirmed_by=row["confirmed_by"],
        activated_at=row["activated_at"],
    )
