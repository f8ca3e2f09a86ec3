"""Erasure statements: their bytes, their signature, and what the checked ones take away of a run.

A gap in a ledger is lawful only where a statement of the erasure key names it together with the
hashes that stay. Source: docs/ledger-format.md section 12.

Threat: Ledger tampering
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.domain.erasure import LEGAL_BASIS, ErasureAction, ErasureRequest
from app.domain.run import Json, JsonObject
from app.ledger.hashing import tag
from app.ledger.header import FIELD_NUMBERS, encode_time

VERSION: Final = 1
RECORD_KINDS: Final[Mapping[str, ErasureAction]] = MappingProxyType(
    {f"erasure.{action.value}": action for action in ErasureAction}
)
_MEMBERS = frozenset(
    "v action log run at actor legal_basis request_ref items checkpoint".split()  # noqa: SIM905 - the list of section 12, as it stands there
)
_ITEM = frozenset({"seq", "rc", "chain", "fields"})
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)
_ACTOR = re.compile(r"key:[0-9a-f]{16}|system|operator", re.ASCII)
_HEX16, _HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII), re.compile(r"[0-9a-f]{64}", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{128}", re.ASCII)
_MESSAGE, _REQUEST = tag("erasure"), tag("erasure-request")


class StatementError(ValueError):
    """A statement is malformed, is not about this log, or was not signed by an erasure key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedItem:
    """One record at the time of the erasure, and the fields that it loses."""

    seq: int
    rc: bytes
    chain: bytes
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureStatement:
    """Who took what away, when and why. `items` is every record of the run; None for a tenant."""

    action: ErasureAction
    log: bytes
    run: bytes | None
    at: datetime
    actor: str
    legal_basis: str
    request_ref: bytes
    items: tuple[ErasedItem, ...] | None
    checkpoint: str | None

    def encode(self) -> bytes:
        """The statement's bytes: sorted keys, no spaces."""
        return _dump(
            {
                "v": VERSION,
                "action": self.action.value,
                "log": self.log.hex(),
                "run": None if self.run is None else self.run.hex(),
                "at": encode_time(self.at),
                "actor": self.actor,
                "legal_basis": self.legal_basis,
                "request_ref": self.request_ref.hex(),
                "items": None if self.items is None else [_item(item) for item in self.items],
                "checkpoint": self.checkpoint,
            }
        )


def signed_note(
    statement: bytes, *, public_key: bytes, sign: Callable[[bytes], bytes]
) -> JsonObject:
    """The `note` of the erasure record: statement, signature and the key to look for."""
    return {
        "statement": statement.decode("utf-8"),
        "signature": sign(_MESSAGE + statement).hex(),
        "key": public_key.hex(),
    }


def request_message(request: ErasureRequest) -> bytes:
    """What a writer signs when it stores somebody's wish to erase: every member of it."""
    fields: Json = None if request.fields is None else list(request.fields)
    told: JsonObject = {
        "erasure": request.erasure_id.hex,
        "tenant": request.tenant_id.hex,
        "log": request.log_id.hex,
        "action": request.action.value,
        "run": None if request.run_id is None else request.run_id.hex,
        "fields": fields,
        "legal_basis": request.legal_basis,
        "request_ref": request.request_ref.hex(),
        "actor": request.actor,
        "at": encode_time(request.requested_at),
    }
    return _REQUEST + _dump(told)


def signature_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature holds; malformed keys and signatures do not."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def checked_statement(note: bytes, *, keys: Collection[bytes]) -> ErasureStatement:
    """The statement of a note that an erasure key of the deployment signed, or StatementError."""
    told = _object(note)
    if told.keys() != {"statement", "signature", "key"}:
        raise StatementError("a note with other members than a statement has")
    statement = told["statement"]
    if not isinstance(statement, str):
        raise StatementError("a statement is text")
    try:
        raw = statement.encode("utf-8")
    except UnicodeEncodeError:
        raise StatementError("a lone surrogate") from None
    key = bytes.fromhex(_text(told["key"], _HEX32))
    signature = bytes.fromhex(_text(told["signature"], _HEX64))
    if key not in keys:
        raise StatementError("signed by a key that is not an erasure key of this deployment")
    if not signature_holds(key, signature, _MESSAGE + raw):
        raise StatementError("the signature of a statement does not hold")
    return parse_statement(raw)


def signer_of(note: bytes) -> bytes:
    """The key that a note names, for one whose statement was checked. StatementError."""
    return bytes.fromhex(_text(_object(note).get("key"), _HEX32))


def parse_statement(raw: bytes) -> ErasureStatement:
    """The members of a statement in its one spelling. StatementError outside section 12."""
    told = _object(raw)
    if told.keys() != _MEMBERS or type(told["v"]) is not int or told["v"] != VERSION:
        raise StatementError("a statement with other members than section 12 names")
    if _dump(told) != raw:
        raise StatementError("a statement in another spelling")
    action, run, checkpoint = told["action"], told["run"], told["checkpoint"]
    if not isinstance(action, str) or f"erasure.{action}" not in RECORD_KINDS:
        raise StatementError("an unknown action")
    is_tenant = action == ErasureAction.DELETE_TENANT
    if (run is None) is not is_tenant or (told["items"] is None) is not is_tenant:
        raise StatementError("a run has items, a tenant has none")
    if not isinstance(checkpoint, str | None):
        raise StatementError("a checkpoint is text")
    return ErasureStatement(
        action=ErasureAction(action),
        log=bytes.fromhex(_text(told["log"], _HEX16)),
        run=None if is_tenant else bytes.fromhex(_text(run, _HEX16)),
        at=_time(told["at"]),
        actor=_text(told["actor"], _ACTOR),
        legal_basis=_text(told["legal_basis"], LEGAL_BASIS),
        request_ref=bytes.fromhex(_text(told["request_ref"], _HEX32)),
        items=None if is_tenant else _items(told["items"]),
        checkpoint=checkpoint,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What statements say of one record: its hashes, and what it lost."""

    hashes: frozenset[tuple[bytes, bytes]]
    fields: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What checked statements take away of one run. Made here only, or `NOTHING`."""

    records: Mapping[int, Taken]
    is_deleted: bool

    def __bool__(self) -> bool:
        return bool(self.records)


NOTHING: Final = Erased(records=MappingProxyType({}), is_deleted=False)


def erased_of(statements: Sequence[ErasureStatement], *, log: bytes, run: bytes) -> Erased:
    """What these checked statements take of this run. StatementError when one is not about it."""
    records: dict[int, Taken] = {}
    for statement in statements:
        if statement.log != log or statement.run != run:
            raise StatementError("a statement about another run")
        for item in statement.items or ():
            known = records.get(item.seq)
            hashes, fields = frozenset({(item.rc, item.chain)}), frozenset(item.fields)
            records[item.seq] = Taken(
                hashes=hashes if known is None else known.hashes | hashes,
                fields=fields if known is None else known.fields | fields,
            )
    deleted = any(statement.action is ErasureAction.DELETE_RUN for statement in statements)
    return Erased(records=records, is_deleted=deleted)


def _item(item: ErasedItem) -> Json:
    return {
        "seq": item.seq,
        "rc": item.rc.hex(),
        "chain": item.chain.hex(),
        "fields": list(item.fields),
    }


def _items(value: Json) -> tuple[ErasedItem, ...]:
    if not isinstance(value, list) or not value:
        raise StatementError("items are a list")
    return tuple(_parsed_item(seq, item) for seq, item in enumerate(value))


def _parsed_item(seq: int, value: Json) -> ErasedItem:
    if not isinstance(value, dict) or value.keys() != _ITEM:
        raise StatementError("an item with other members than section 12 names")
    if type(value["seq"]) is not int or value["seq"] != seq:
        raise StatementError("items leave out a record")
    fields = value["fields"]
    if not isinstance(fields, list):
        raise StatementError("the fields of an item are a list")
    names = [name for name in fields if isinstance(name, str) and name in FIELD_NUMBERS]
    if len(names) != len(fields) or sorted(set(names)) != names:
        raise StatementError("the fields of an item are known names, sorted, each once")
    return ErasedItem(
        seq=seq,
        rc=bytes.fromhex(_text(value["rc"], _HEX32)),
        chain=bytes.fromhex(_text(value["chain"], _HEX32)),
        fields=tuple(names),
    )


def _text(value: Json, rule: re.Pattern[str]) -> str:
    if not isinstance(value, str) or rule.fullmatch(value) is None:
        raise StatementError("a member of a statement breaks its rule")
    return value


def _time(value: Json) -> datetime:
    text = _text(value, _TIME)
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        raise StatementError("a member of a statement breaks its rule") from None


def _dump(value: JsonObject) -> bytes:
    text = json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise StatementError("a lone surrogate") from None


def _object(raw: bytes) -> JsonObject:
    try:
        value: Json = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise StatementError("not JSON") from None
    if not isinstance(value, dict):
        raise StatementError("not an object")
    return value
