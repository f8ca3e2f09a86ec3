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
from app.domain.verdict import Decision, Scrubbed, ScrubBlock
from app.ledger.hashing import (
    SALT_BYTES,
    chain_hash,
    commitment,
    digest_key,
    genesis,
    keyed_digest,
    record_hash,
)
from app.ledger.header import FIELD_NUMBERS, Header
from app.ledger.sealing import NONCE_BYTES, RunSealer

Entropy = Callable[[int], bytes]


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

    __slots__ = ("_entropy", "_log", "_run", "_run_key", "_sandbox", "_sealer", "_tools", "_writer")

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
        self._log = log
        self._run = run
        self._sealer = RunSealer(run_key, log=log, run=run)
        self._run_key = run_key
        self._tools: dict[str, bytes] | None = None  # made when needed: few runs live that long
        self._writer = writer
        self._entropy = entropy
        self._sandbox = sandbox

    def seal(
        self, head: ChainHead, drafts: Sequence[Draft], *, epoch: int, at: datetime
    ) -> SealedAppend:
        """What appends `drafts` after `head`."""
        records: list[SealedRecord] = []
        fields: list[SealedField] = []
        chain = head.chain
        for seq, draft in enumerate(drafts, head.next_seq):
            commits, sealed = self._seal_fields(seq, draft.fields)
            fields += sealed
            header = self._header(seq, draft, commits, epoch=epoch, at=at).encode()
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

    def _seal_fields(
        self, seq: int, fields: Mapping[str, Scrubbed]
    ) -> tuple[dict[str, bytes], list[SealedField]]:
        commits: dict[str, bytes] = {}
        sealed: list[SealedField] = []
        for name, scrubbed in fields.items():
            salt = self._entropy(SALT_BYTES)
            commits[name] = commitment(self._log, self._run, seq, name, salt, scrubbed.value)
            number = FIELD_NUMBERS[name]
            nonce = self._entropy(NONCE_BYTES)
            blob = self._sealer.seal(
                seq=seq, field=number, salt=salt, value=scrubbed.value, nonce=nonce
            )
            sealed.append(SealedField(seq=seq, field=number, blob=blob))
        return commits, sealed

    def _header(
        self, seq: int, draft: Draft, commits: Mapping[str, bytes], *, epoch: int, at: datetime
    ) -> Header:
        tool = None if draft.tool is None else self._tool_digest(draft.tool)
        return Header(
            log=self._log,
            run=self._run,
            seq=seq,
            epoch=epoch,
            kind=draft.kind,
            at=at,
            event_id=self._entropy(16),
            nonce=self._entropy(16),
            actor=draft.actor,
            writer=self._writer.writer_id,
            intent=draft.intent,
            parent=None,
            decision=draft.decision,
            model=draft.model,
            engine=draft.engine,
            tool=tool,
            usage=draft.usage,
            outcome=draft.outcome,
            sandbox=self._sandbox,
            approval=None,
            scrub=_joined_blocks([scrubbed.block for scrubbed in draft.fields.values()]),
            size={name: len(item.value).bit_length() for name, item in draft.fields.items()},
            commit=commits,
        )

    def _tool_digest(self, name: str) -> bytes:
        if self._tools is None:
            self._tools = {}
        if name not in self._tools:
            key = digest_key(self._run_key)
            self._tools[name] = keyed_digest(key, "tool", name.encode())
        return self._tools[name]


def _joined_blocks(blocks: Sequence[ScrubBlock]) -> ScrubBlock | None:
    """One block for all fields of a record: counts added, failed when any failed."""
    if not blocks:
        return None
    counts: dict[str, int] = {}
    for block in blocks:
        for kind, count in block.counts.items():
            counts[kind] = counts.get(kind, 0) + count
    first = blocks[0]
    return ScrubBlock(
        engine=first.engine,
        rules=first.rules,
        policy=first.policy,
        mode=first.mode,
        status="ok" if all(block.status == "ok" for block in blocks) else "failed",
        counts=counts,
        unscanned=sum(block.unscanned for block in blocks),
    )
