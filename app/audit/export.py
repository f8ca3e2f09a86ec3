"""Exports a run as a bundle that a stranger can verify offline, once it has been verified here.

Source: docs/ledger-format.md section 13.

Threat: Ledger tampering
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.audit import bundle_tar
from app.audit.bundle_tar import base64, bundle_bytes, encoded, hashes
from app.audit.followed_keys import require_followed
from app.audit.inclusion import InclusionError
from app.audit.key_book import KeyHistory
from app.audit.log_entries import EntryError, OpenedEntry, open_entry
from app.audit.replay_ledger import LogChecks, ReplayLedger
from app.audit.run_dossier import Evidence
from app.audit.witnessing import Witnessed
from app.domain.errors import ChainBreak, LedgerBrokenError, NotSequencedError
from app.domain.run import Json, JsonObject, RunId, TenantId
from app.keys.key_store import KeyStore
from app.ledger.batches import chains_of, spans_of
from app.ledger.chain import StoredBatch, StoredRecord
from app.ledger.hashing import batch_entry
from app.ledger.header import encode_time
from app.ledger.sealing import RunSealer
from app.storage.database import Database
from app.storage.entry_store import NOTE, find_entries, read_entries
from app.storage.log_store import read_tiles
from app.storage.place_store import SignedHead
from app.transparency.merkle_tree import hash_leaf
from app.transparency.note import with_signatures
from app.transparency.tiles import TileError, Tiles, grown, inclusion_proof, tiles_for_inclusion

_ERASURES = ("erasure.anonymize_run", "erasure.delete_run")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tree:
    """A signed tree and the tiles for what is proved of it."""

    size: int
    tiles: Tiles

    def proof(self, index: int) -> list[Json]:
        return hashes(inclusion_proof(index, self.size, self.tiles))


class BundleExporter:
    """Exports runs of one deployment, always within a tenant."""

    def __init__(
        self, *, database: Database, replay: ReplayLedger, logs: LogChecks, keys: KeyStore
    ) -> None:
        self._database = database
        self._replay = replay
        self._logs = logs
        self._keys = keys

    async def bundle(
        self, tenant_id: TenantId, run_id: RunId, *, with_fields: bool = True
    ) -> bytes:
        """The bundle. NotFoundError; LedgerBrokenError: what does not hold is not exported.

        NotSequencedError while no checkpoint covers an erasure of the run: a verifier would see the
        gap and no statement that explains it; and as `require_followed` says. Without its fields a
        bundle shows no gap; it is for who may know that a run was, and not what was in it. Of a
        deleted run there is what remains: hashes, places, signatures, and the statement that took
        the rest.
        """
        evidence = await self._replay.evidence(tenant_id, run_id)
        try:
            erasures = await self._erasures(tenant_id, run_id)
            head, witnessed = await self._checkpoint(evidence, erasures)
            shows_gaps = with_fields or evidence.run_key is None
            if shows_gaps and not all(_is_covered(entry, head) for entry in erasures):
                raise NotSequencedError
            members = await self._members(tenant_id, evidence, head, witnessed, erasures)
        except InclusionError as error:
            raise LedgerBrokenError(error.found) from error
        except TileError as error:
            found = ChainBreak(seq=0, reason=f"the tree of the log does not hold: {error}")
            raise LedgerBrokenError(found) from error
        if not with_fields:
            members["payloads.jsonl"] = b""
        return bundle_bytes(tenant_id.bytes, run_id.bytes, members)

    async def _checkpoint(
        self, evidence: Evidence, erasures: Sequence[OpenedEntry]
    ) -> tuple[SignedHead | None, Witnessed | None]:
        """The newest checkpoint that is witnessed and has all that is signed of the run.

        Where none is, the newest there is, with the operator log that holds it.
        """
        newest, first = evidence.newest, evidence.inclusion.covering
        if newest is None:
            return None, None
        least = max((e.stored.index or 0 for e in erasures), default=-1)
        is_asked_for = self._logs.witnessing.is_asked_for
        for head in (newest, first):
            if head is None or head.size <= least or not is_asked_for:
                continue
            witnessed = await self._logs.witnessing.find(head, newest=True)
            if witnessed is not None:
                return head, witnessed
        return newest, await self._logs.witnessing.anchored(newest)

    async def _members(
        self,
        tenant_id: TenantId,
        evidence: Evidence,
        head: SignedHead | None,
        witnessed: Witnessed | None,
        erasures: Sequence[OpenedEntry],
    ) -> dict[str, bytes]:
        stored = evidence.stored
        places = {
            seq: index
            for seq, index in evidence.inclusion.places.items()
            if head is not None and index < head.size
        }
        told = [entry for entry in erasures if _is_covered(entry, head)]
        indexes = [*places.values(), *(e.stored.index or 0 for e in told)]
        tree = await self._tree(tenant_id, 0 if head is None else head.size, indexes)
        history = await self._logs.book.history()
        require_followed(history, 0 if witnessed is None else witnessed.operator.size, stored, told)
        anchor, operator_note, keys = await self._operator_part(witnessed, history)
        return {
            "records.jsonl": bundle_tar.lines(
                _record(record, places.get(record.seq), tree) for record in stored.records
            ),
            "payloads.jsonl": bundle_tar.lines(_payloads(evidence)),
            "batches.jsonl": bundle_tar.lines(_batches(evidence)),
            "writers.jsonl": bundle_tar.lines(_writers(stored.batches)),
            "checkpoint.note": b"" if head is None else head.note.encode(),
            "anchor.json": encoded(anchor),
            "operator.note": operator_note,
            "administration.jsonl": bundle_tar.lines(
                [*(_entry(entry, tree) for entry in told), *keys]
            ),
        }

    async def _operator_part(
        self, witnessed: Witnessed | None, history: KeyHistory
    ) -> tuple[Json, bytes, list[JsonObject]]:
        """The anchor, the note it leads to, and the key records that this note has."""
        if witnessed is None:
            return None, b"", []
        size = witnessed.operator.size
        known = [e for e in history.entries if e.stored.index is not None]
        known = [e for e in known if (e.stored.index or 0) < size]
        indexes = [e.stored.index or 0 for e in (*known, witnessed.entry)]
        tree = await self._tree(witnessed.entry.log, size, indexes)
        note = with_signatures(witnessed.note.encode(), witnessed.lines)
        return _entry(witnessed.entry, tree), note, [_entry(entry, tree) for entry in known]

    async def _erasures(self, tenant_id: TenantId, run_id: RunId) -> list[OpenedEntry]:
        """The erasure records of the log that are about this run. LedgerBrokenError."""
        found: list[OpenedEntry] = []
        async with self._database.snapshot(tenant_id) as raw:
            for place in await find_entries(raw, tenant_id, _ERASURES):
                for stored in await read_entries(raw, tenant_id, place[0], [place[1]]):
                    try:
                        entry = open_entry(tenant_id, stored, self._keys)
                        is_of_run = f'"run":"{run_id.hex}"' in str(entry.note.get("statement"))
                    except EntryError as error:
                        reason = f"an erasure record of the log does not hold: {error}"
                        raise LedgerBrokenError(
                            ChainBreak(seq=stored.seq, reason=reason)
                        ) from error
                    if is_of_run:
                        found.append(entry)
        return found

    async def _tree(self, log: TenantId, size: int, indexes: Sequence[int]) -> _Tree:
        wanted = frozenset(
            address for index in indexes for address in tiles_for_inclusion(index, size)
        )
        async with self._database.snapshot(log) as raw:
            return _Tree(size=size, tiles=await read_tiles(raw, log, wanted))


def _is_covered(entry: OpenedEntry, head: SignedHead | None) -> bool:
    index = entry.stored.index
    return index is not None and head is not None and index < head.size


def _record(record: StoredRecord, index: int | None, tree: _Tree) -> JsonObject:
    return {
        "seq": record.seq,
        "epoch": record.epoch,
        "kind": record.kind,
        "ts": None if record.at is None else encode_time(record.at),
        "header": None if record.header is None else base64(record.header),
        "rc": record.rc.hex(),
        "chain": record.chain.hex(),
        "batch_id": record.batch_id.hex(),
        "index": index,
        "proof": None if index is None else tree.proof(index),
    }


def _payloads(evidence: Evidence) -> Iterator[JsonObject]:
    stored = evidence.stored
    if evidence.run_key is None:
        return
    sealer = RunSealer(evidence.run_key, log=stored.log, run=stored.run)
    for item in sorted(stored.fields, key=lambda item: (item.seq, item.field)):
        salt, value = sealer.open(seq=item.seq, field=item.field, blob=item.blob)
        yield {
            "seq": item.seq,
            "field": item.field,
            "salt": base64(salt),
            "value": base64(value),
        }


def _batches(evidence: Evidence) -> Iterator[JsonObject]:
    stored = evidence.stored
    for batch_id in dict.fromkeys(record.batch_id for record in stored.records):
        batch = stored.batches[batch_id]
        yield {
            "batch_id": batch_id.hex(),
            "writer_id": batch.writer.hex(),
            "n": batch.count,
            "ranges": base64(batch.ranges),
            "tip": batch.tip.hex(),
            "sig": base64(batch.signature),
            "entries": _paths(batch, stored.run),
        }


def _paths(batch: StoredBatch, run: bytes) -> Json:
    """Where the run's entries stand under the tip; null when there are no others."""
    spans = spans_of(batch.ranges)
    if len(spans) == 1:
        return None
    chains = chains_of(spans, batch.entries)
    leaves = [
        hash_leaf(batch_entry(span.run, seq, chains[at]))
        for span in spans.values()
        for at, seq in enumerate(range(span.first, span.last + 1), span.place)
    ]
    tiles = grown(0, {}, leaves)
    own = spans[run]
    return [
        {"index": at, "proof": hashes(inclusion_proof(at, len(leaves), tiles))}
        for at in range(own.place, own.place + own.count)
    ]


def _writers(batches: Mapping[bytes, StoredBatch]) -> Iterator[JsonObject]:
    by_id = {batch.writer: batch for batch in batches.values()}
    for writer, batch in sorted(by_id.items()):
        yield {
            "writer_id": writer.hex(),
            "public_key": base64(batch.public_key or b""),
            "certificate": None if batch.certificate is None else base64(batch.certificate),
        }


def _entry(entry: OpenedEntry, tree: _Tree) -> JsonObject:
    """The entry proof of section 10."""
    stored, index = entry.stored, entry.stored.index or 0
    return {
        "log": entry.log.hex,
        "run": stored.run_id.hex,
        "seq": stored.seq,
        "index": index,
        "size": tree.size,
        "header": base64(entry.header),
        "previous": entry.previous.hex(),
        "field": NOTE,
        "salt": entry.salt.hex(),
        "value": base64(entry.value),
        "proof": tree.proof(index),
    }
