"""Holds the API keys as digests, decides whose key was presented, and forgets removed keys.

Fails closed: whatever is not exactly a held key in exactly an accepted place is a failure. No
error, report or repr holds a key; a position in the list is all that is told.

Threat: Unauthorised API access
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.domain.errors import ConfigurationError
from app.domain.run import Scope

DEFAULT_TENANT = "default"
MIN_KEY_CHARACTERS = 24

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TENANT = re.compile(r"[a-z0-9_.-]{1,64}")
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_DIGEST_MARK = "sha256"
_ALL_SCOPES = frozenset(Scope)
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant:
    """What a key stands for. The fingerprint is the first 16 hex digits of the key's SHA-256."""

    tenant: str
    scopes: frozenset[Scope]
    fingerprint: str


class AuthFailure(StrEnum):
    """Why nobody was recognised. For logs and counters; the caller is told only 401."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    DISAGREE = "disagree"


class KeyRing:
    """An immutable set of keys, held as SHA-256 digests in constant-time reach."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[tuple[bytes, KeyGrant]]) -> None:
        self._entries = tuple(entries)

    @classmethod
    def parse(cls, text: str, *, dev: bool = False) -> "KeyRing":
        """From a comma-separated list. ConfigurationError names the position, never the key."""
        items = [(f"item {n}", item) for n, item in enumerate(text.split(","), 1)]
        if not text.strip():
            raise ConfigurationError("the list of API keys is empty")
        return cls(_parse_items(items, dev=dev))

    @classmethod
    def parse_lines(cls, text: str, *, dev: bool = False) -> "KeyRing":
        """One item a line; blank lines and `#` comments are skipped. May hold no key at all."""
        numbered = ((f"line {n}", line.strip()) for n, line in enumerate(text.split("\n"), 1))
        items = [(where, line) for where, line in numbered if line and not line.startswith("#")]
        return cls(_parse_items(items, dev=dev))

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def grants(self) -> tuple[KeyGrant, ...]:
        """Every grant, in the order of the list."""
        return tuple(grant for _, grant in self._entries)

    @property
    def tenants(self) -> frozenset[str]:
        """The names of all tenants that have a key."""
        return frozenset(grant.tenant for _, grant in self._entries)

    def find(self, presented: str) -> KeyGrant | None:
        """The grant of this key, or None. The time taken does not tell which digest came close."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
        found = None
        for held, grant in self._entries:  # to the end, always: no early exit to measure
            if hmac.compare_digest(held, digest):
                found = grant
        return found

    def authenticate(
        self, authorization: str | None, x_api_key: str | None
    ) -> KeyGrant | AuthFailure:
        """Who these two headers speak for. None means that the header is absent.

        A malformed or unknown header is a failure even when the other one is good. A header that
        was sent twice must not come here: the caller refuses it.
        """
        if authorization is None and x_api_key is None:
            return AuthFailure.MISSING
        presented: list[str] = []
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                return AuthFailure.MALFORMED
            presented.append(token.lstrip(" "))
        if x_api_key is not None:
            presented.append(x_api_key)
        if not all(_KEY.fullmatch(key) for key in presented):
            return AuthFailure.MALFORMED
        if not hmac.compare_digest(presented[0], presented[-1]):
            return AuthFailure.DISAGREE
        return self.find(presented[0]) or AuthFailure.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReload:
    """What reading the key file again did: fingerprints, or why the old ring was kept.

    `error` holds no key and no path; when it is set, nothing changed.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()  # same key, other tenant or scopes
    error: str | None = None


class KeySource:
    """The ring in force. From a file it follows the file: a key removed there stops working.

    A file that becomes unreadable or malformed keeps the ring that was in force and says so; a
    file that is readable and holds no key revokes every key.
    """

    __slots__ = ("_dev", "_path", "_seen", "ring")

    def __init__(self, ring: KeyRing, *, path: Path | None, seen: str, dev: bool) -> None:
        self.ring = ring
        self._path = path
        self._seen = seen
        self._dev = dev

    @classmethod
    def from_list(cls, text: str, *, dev: bool = False) -> "KeySource":
        """A fixed ring from MESHFLOW_API_KEYS; reloading does nothing."""
        return cls(KeyRing.parse(text, dev=dev), path=None, seen="", dev=dev)

    @classmethod
    def from_file(cls, path: Path, *, dev: bool = False) -> "KeySource":
        """From MESHFLOW_API_KEYS_FILE. ConfigurationError if unreadable, malformed or empty."""
        text = _read(path)
        ring = KeyRing.parse_lines(text, dev=dev)
        if not ring.grants:
            raise ConfigurationError("the file of API keys holds no key")
        return cls(ring, path=path, seen=_sighting(text), dev=dev)

    def reload(self) -> KeyReload:
        """Reads the file now (SIGHUP) and reports even when nothing changed."""
        return self._reload() or KeyReload()

    def reload_if_changed(self) -> KeyReload | None:
        """Reads the file and reports only news; the same error is told once, not at each call.

        The content is compared and not the modification time: a change of equal length within one
        tick of the file system's clock, or a swapped symbolic link, is seen all the same.
        """
        before = self._seen
        report = self._reload()
        return None if self._seen == before else report

    def _reload(self) -> KeyReload | None:
        if self._path is None:
            return None
        try:
            text = _read(self._path)
        except ConfigurationError as error:
            self._seen = f"unreadable: {error}"
            return KeyReload(error=str(error))
        self._seen = _sighting(text)
        try:
            new = KeyRing.parse_lines(text, dev=self._dev)
        except ConfigurationError as error:
            return KeyReload(error=str(error))
        before = {grant.fingerprint: grant for grant in self.ring.grants}
        after = {grant.fingerprint: grant for grant in new.grants}
        self.ring = new
        return KeyReload(
            added=tuple(sorted(after.keys() - before.keys())),
            removed=tuple(sorted(before.keys() - after.keys())),
            changed=tuple(sorted(k for k in after.keys() & before.keys() if after[k] != before[k])),
        )


def new_key(token: Callable[[int], str]) -> str:
    """`mf_` and 43 url-safe characters, when `token` is `secrets.token_urlsafe`: 256 bits."""
    return f"mf_{token(32)}"


def development_items(submit_key: str, approve_key: str) -> str:
    """The two items that `--dev` serves with: all scopes but approve; approve, audit, policy."""
    submit = "+".join(sorted(_ALL_SCOPES - {Scope.APPROVE}))
    approve = f"{Scope.APPROVE}+{Scope.AUDIT}+{Scope.POLICY}"
    return f"{DEFAULT_TENANT}:{submit}:{submit_key},{DEFAULT_TENANT}:{approve}:{approve_key}"


def _parse_items(items: list[tuple[str, str]], *, dev: bool) -> list[tuple[bytes, KeyGrant]]:
    entries: list[tuple[bytes, KeyGrant]] = []
    first_at: dict[bytes, str] = {}
    for where, item in items:
        digest, grant = _parse_item(item.strip(), where, dev=dev)
        if digest in first_at:
            raise ConfigurationError(f"API key {where}: the same key as {first_at[digest]}")
        first_at[digest] = where
        entries.append((digest, grant))
    return entries


def _parse_item(item: str, where: str, *, dev: bool) -> tuple[bytes, KeyGrant]:
    """Split from the right: key, scopes, tenant."""
    parts = item.split(":")
    key = parts.pop()
    if parts and parts[-1] == _DIGEST_MARK:
        parts.pop()
        if _DIGEST.fullmatch(key) is None:
            raise ConfigurationError(f"API key {where}: sha256: needs 64 hex digits after it")
        digest = bytes.fromhex(key)
    else:
        digest = _digest_of_clear_key(key, where, dev=dev)
    match parts:
        case []:
            tenant, scopes = DEFAULT_TENANT, _ALL_SCOPES
        case [tenant]:
            scopes = _ALL_SCOPES
        case [tenant, names]:
            scopes = _parse_scopes(names, where)
        case _:
            raise ConfigurationError(f"API key {where}: more parts than tenant:scopes:key")
    if _TENANT.fullmatch(tenant) is None:
        raise ConfigurationError(f"API key {where}: a tenant name must match {_TENANT.pattern}")
    if tenant == _DIGEST_MARK or tenant in _ALL_SCOPES:
        # `run:KEY` was surely meant as a scope; reading it as a tenant would grant every scope.
        raise ConfigurationError(f"API key {where}: the tenant name is a reserved word")
    return digest, KeyGrant(tenant=tenant, scopes=scopes, fingerprint=digest.hex()[:16])


def _digest_of_clear_key(key: str, where: str, *, dev: bool) -> bytes:
    if not key:
        raise ConfigurationError(f"API key {where}: empty")
    if _KEY.fullmatch(key) is None:
        raise ConfigurationError(f"API key {where}: a key is made of letters, digits, _ and -")
    if key == _DIGEST_MARK:
        raise ConfigurationError(f"API key {where}: sha256: needs 64 hex digits after it")
    if len(key) < MIN_KEY_CHARACTERS and not dev:
        raise ConfigurationError(
            f"API key {where}: shorter than {MIN_KEY_CHARACTERS} characters, "
            "which only development mode allows"
        )
    return hashlib.sha256(key.encode()).digest()


def _parse_scopes(text: str, where: str) -> frozenset[Scope]:
    names = text.split("+")
    if not set(names) <= _ALL_SCOPES:
        known = ", ".join(Scope)
        raise ConfigurationError(f"API key {where}: an unknown scope (known: {known})")
    return frozenset(Scope(name) for name in names)


def _sighting(text: str) -> str:
    """What is remembered of the file to see a change: a digest, so that no key stays in memory."""
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"the file of API keys cannot be read: {error.strerror}"
        ) from None  # the cause would show the path
    if len(raw) > _MAX_FILE_BYTES:
        raise ConfigurationError("the file of API keys is too large")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError("the file of API keys is not UTF-8 text") from None
