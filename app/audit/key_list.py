"""Tells the deployment's public keys, where in a log each counts, and the policy that pins them.

Source: docs/ledger-format.md section 11.

Threat: Ledger tampering
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.audit.key_book import KeyBook, KeyHistory
from app.audit.pinned_policy import policy_text
from app.domain.run import TenantId
from app.keys.signing_keys import ENROLMENT, LOG, SigningKeys
from app.storage.database import Database
from app.storage.log_store import read_head
from app.storage.writer_list import read_writers
from app.transparency.note import ED25519, verifier_key
from app.transparency.witness_policy import WitnessPolicy

_MOST_WRITERS = 500
ERASURE = "erasure"


class KeyRole(StrEnum):
    """What a key signs."""

    LOG = "log"
    ENROLMENT = "enrolment"
    ERASURE = "erasure"
    WRITER = "writer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedKey:
    """A public key. It counts from an index (of a checkpoint: its size) up to below another."""

    role: KeyRole
    key_id: str | None
    public_key: bytes
    verifier_key: str | None
    certificate: bytes | None
    from_index: int
    until_index: int | None


class KeyLister:
    """The keys of one deployment."""

    def __init__(
        self,
        *,
        database: Database,
        signing: SigningKeys,
        book: KeyBook,
        deployment: str,
        origin_of: Callable[[bytes], str],
        witnesses: WitnessPolicy | None,
        erasure_keys: Callable[[], Sequence[bytes]] = tuple,
    ) -> None:
        self._database = database
        self._signing = signing
        self._book = book
        self._deployment = deployment
        self._origin_of = origin_of
        self._witnesses = witnesses
        self._erasure_keys = erasure_keys

    async def of_log(self, tenant_id: TenantId) -> tuple[list[ListedKey], bool]:
        """The keys as they count in a log, and whether there are more writers than are told."""
        history = await self._book.history()
        async with self._database.snapshot(tenant_id) as raw:
            head = await read_head(raw, tenant_id)
            writers = await read_writers(raw, _MOST_WRITERS + 1)
        origin = self._origin_of(tenant_id.bytes) if head is None else head.origin
        log = tenant_id.hex
        keys = [*self._named(LOG, origin, history, log)]
        for role in (ENROLMENT, ERASURE):
            keys += self._named(role, f"{self._deployment}/{role}", history, log)
        for writer in writers[:_MOST_WRITERS]:
            retired = history.retired.get(writer.writer_id)
            keys.append(
                ListedKey(
                    role=KeyRole.WRITER,
                    key_id=writer.writer_id.hex(),
                    public_key=writer.public_key,
                    verifier_key=None,
                    certificate=writer.certificate,
                    from_index=0,
                    until_index=None if retired is None else retired.get(log, 0),
                )
            )
        return keys, len(writers) > _MOST_WRITERS

    async def policy(self) -> str:
        """The policy that a verifier pins."""
        return policy_text(await self.own_lines(), self._witnesses)

    async def own_lines(self) -> list[str]:
        """The lines of a policy that name the deployment's own keys."""
        operator = await self._book.operator()
        async with self._database.snapshot(operator) as raw:
            head = await read_head(raw, operator)
        origin = self._origin_of(operator.bytes) if head is None else head.origin
        lines = [f"log {_vkey(origin, key)}" for key in self._publics(LOG)]
        for role in (ENROLMENT, ERASURE):
            name = f"{self._deployment}/{role}"
            lines += [f"#meshflow/v1 {role} {_vkey(name, key)}" for key in self._publics(role)]
        return lines

    def _publics(self, role: str) -> list[bytes]:
        if role == ERASURE:
            return list(self._erasure_keys())
        return [key.public_key for key in self._signing.every(role)]

    def _named(self, role: str, name: str, history: KeyHistory, log: str) -> Iterator[ListedKey]:
        begins = {item.new: item for item in history.rotations if item.role == role}
        ends = {item.old: item for item in history.rotations if item.role == role}
        for key in self._publics(role):
            start, end = begins.get(key), ends.get(key)
            # A log key counts for checkpoints above a size, up to one that it still signed.
            is_log = role == LOG
            yield ListedKey(
                role=KeyRole(role),
                key_id=None,
                public_key=key,
                verifier_key=_vkey(name, key),
                certificate=None,
                from_index=start.sizes.get(log, 0) + 1 if start is not None and is_log else 0,
                until_index=None if end is None else end.sizes.get(log, 0) + int(is_log),
            )


def _vkey(name: str, public_key: bytes) -> str:
    return verifier_key(name, ED25519, public_key).encode()
