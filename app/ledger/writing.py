"""Builds the records of one append: commitments, seals, hashes and the chain of its run.

The signature comes later, over all that is written together: see batches.py.

Pure: time, ids and randomness come in; nothing is written here. A payload enters only as Scrubbed.

Threat: Ledger tampering
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.domain.run import Usage
from app.domain.verdict import Decision, Scrubbed
from app.ledger.canonical import CanonicalError
from app.ledger.hashing import (
    SALT_BYTES,
    chain_hash,
    commitment_in,
    commitment_place,
    digest_key,
    genesis,
    keyed_digest,
    record_hash,
)
from app.ledger.header import FIELD_NUMBERS, encode_time
from app.ledger.header_form import Filling, Form, id_text, joined_scrub, spelled_header
from app.ledger.sealing import NONCE_BYTES, RunSealer

Entropy = Callable[[int], bytes]
_ID_BYTES = 16
_FIELD_BYTES = SALT_BYTES + NONCE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One record to be: what happened, in codes, and the scrubbed fields that tell it in words."""

    kind: str
    actor: str
    intent: int | None = None
    decision: Decision | None = None
    model: str | None = None
    engine: str | None = None
    tool: str | None = None  # enters the header as a keyed digest only
    usage: Usage | None = None
    outcome: str | None = None
    approval: bytes | None = None
    fields: Mapping[str, Scrubbed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """Where the next record of a run goes: its seq and the chain hash before it."""

    next_seq: int
    chain: bytes

    @classmethod
    def empty(cls, log: bytes, run: bytes) -> "ChainHead":
        """The head of a run without records."""
        return cls(next_seq=0, chain=genesis(log, run))


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRecord:
    """A record as stored."""

    seq: int
    epoch: int
    kind: str
    at: datetime
    header: bytes
    rc: bytes
    chain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedField:
    """A payload field as stored."""

    seq: int
    field: int
    blob: bytes


class WriterKey:
    """The Ed25519 key with which this process signs what it appends."""

    __slots__ = ("_private", "public_key", "writer_id")

    def __init__(self, private: bytes, writer_id: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(private)
        self.writer_id = writer_id
        self.public_key = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, message: bytes) -> bytes:
        """64 bytes of Ed25519 (RFC 8032)."""
        return self._private.sign(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedAppend:
    """What one append adds to one run, who is to sign for it, and the run's head after it.

    Its records do not know their batch: they may be signed again, in another one.
    """

    log: bytes
    run: bytes
    writer: WriterKey
    records: tuple[SealedRecord, ...]
    fields: tuple[SealedField, ...]

    @property
    def head(self) -> ChainHead:
        """Where the next record of the run goes."""
        last = self.records[-1]
        return ChainHead(next_seq=last.seq + 1, chain=last.chain)


class RunWriter:
    """Turns drafts of one run into sealed records. Holds no head: the caller passes it."""

    __slots__ = (
        "_entropy",
        "_log",
        "_log_text",
        "_place",
        "_run",
        "_run_key",
        "_run_text",
        "_sandbox",
        "_sealer",
        "_tools",
        "_writer",
        "_writer_text",
    )

    def __init__(
        self,
        *,
        log: bytes,
        run: bytes,
        run_key: bytes,
        writer: WriterKey,
        entropy: Entropy,
        sandbox: str | None = None,
    ) -> None:
        self._log, self._log_text = log, id_text(log)
        self._run, self._run_text = run, id_text(run)
        self._place = commitment_place(log, run)
        self._sealer = RunSealer(run_key, log=log, run=run)
        self._run_key = run_key
        self._tools: dict[str, bytes] | None = None  # made when needed: few runs live that long
        self._writer, self._writer_text = writer, id_text(writer.writer_id)
        self._entropy = entropy
        self._sandbox = sandbox

    def seal(
        self, head: ChainHead, drafts: Sequence[Draft], *, epoch: int, at: datetime
    ) -> SealedAppend:
        """What appends `drafts` after `head`. CanonicalError when a header breaks a rule."""
        records: list[SealedRecord] = []
        fields: list[SealedField] = []
        chain, ts = head.chain, encode_time(at)
        for seq, draft in enumerate(drafts, head.next_seq):
            header = self._sealed(seq, draft, fields, epoch=epoch, ts=ts)
            rc = record_hash(header)
            chain = chain_hash(chain, seq, rc)
            records.append(
                SealedRecord(
                    seq=seq, epoch=epoch, kind=draft.kind, at=at, header=header, rc=rc, chain=chain
                )
            )
        return SealedAppend(
            log=self._log,
            run=self._run,
            writer=self._writer,
            records=tuple(records),
            fields=tuple(fields),
        )

    def _sealed(
        self, seq: int, draft: Draft, fields: list[SealedField], *, epoch: int, ts: str
    ) -> bytes:
        """The header of one record; its sealed fields go to the end of `fields`."""
        said = draft.fields
        random = self._randomness(len(said))
        commits: dict[str, str] = {}
        at = 0
        for name, scrubbed in said.items():
            salt, nonce = random[at : at + SALT_BYTES], random[at + SALT_BYTES : at + _FIELD_BYTES]
            at += _FIELD_BYTES
            value, number = scrubbed.value, FIELD_NUMBERS[name]
            commits[name] = commitment_in(self._place, seq, name, salt, value).hex()
            blob = self._sealer.seal(seq=seq, field=number, salt=salt, value=value, nonce=nonce)
            fields.append(SealedField(seq=seq, field=number, blob=blob))
        names = sorted(commits)
        form = Form(
            draft.actor,
            draft.engine,
            draft.kind,
            draft.model,
            draft.outcome,
            draft.decision,
            self._sandbox,
            tuple(names),
        )
        filling = Filling(
            draft.approval,
            [commits[name] for name in names],
            epoch,
            random[at : at + _ID_BYTES].hex(),
            draft.intent,
            self._log_text,
            random[at + _ID_BYTES :].hex(),
            self._run_text,
            joined_scrub([scrubbed.block for scrubbed in said.values()]),
            seq,
            [len(said[name].value).bit_length() for name in names],
            None if draft.tool is None else self._tool_digest(draft.tool),
            ts,
            draft.usage,
            self._writer_text,
        )
        return spelled_header(form, filling)

    def _randomness(self, fields: int) -> bytes:
        """A salt and a nonce for each field, then an event id and a nonce: drawn together."""
        count = fields * _FIELD_BYTES + 2 * _ID_BYTES
        random = self._entropy(count)
        if len(random) != count:
            raise CanonicalError("the source of randomness gave too little")
        return random

    def _tool_digest(self, name: str) -> bytes:
        if self._tools is None:
            self._tools = {}
        if name not in self._tools:
            key = digest_key(self._run_key)
            self._tools[name] = keyed_digest(key, "tool", name.encode())
        return self._tools[name]
