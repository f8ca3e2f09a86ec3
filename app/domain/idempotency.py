"""The words for a request that comes with an idempotency key: what it claims, how it ended."""

from dataclasses import dataclass

from app.domain.run import RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyClaim:
    """A key and the request it came with, as digests under the key of each day that may count.

    The digests of the present day come first: under these it is stored.
    """

    keys: tuple[bytes, ...]
    requests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the first request ended: its status, the run it is about, and an id or numbers."""

    status: int
    run_id: RunId | None = None
    told: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """This request is the first with its key; `key` names the row that says so."""

    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key that came before. `request` None: its content was erased. `outcome` None: under way."""

    key: bytes
    request: bytes | None
    outcome: Outcome | None
