"""Writes the members of an export bundle: their JSON, the manifest, the tar.

Pure. Source: docs/ledger-format.md section 13.

Threat: Ledger tampering
"""

import io
import json
import tarfile
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from app.domain.run import Json, JsonObject

FORMAT = "meshflow-bundle/v1"
MANIFEST = "manifest.json"
MEMBERS = (
    "records.jsonl",
    "payloads.jsonl",
    "batches.jsonl",
    "writers.jsonl",
    "checkpoint.note",
    "anchor.json",
    "operator.note",
    "administration.jsonl",
)
_MODE = 0o644


def encoded(value: Json) -> bytes:
    """Canonical JSON with free keys, and its newline."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode() + b"\n"


def lines(rows: Iterable[JsonObject]) -> bytes:
    """One JSON object a line."""
    return b"".join(encoded(row) for row in rows)


def base64(data: bytes) -> str:
    """Standard, padded."""
    return b64encode(data).decode("ascii")


def hashes(proof: Sequence[bytes]) -> list[Json]:
    """The hashes of a proof."""
    return [base64(item) for item in proof]


def bundle_bytes(log: bytes, run: bytes, members: Mapping[str, bytes]) -> bytes:
    """The tar of these members, with the manifest before them. KeyError when one is missing."""
    files: JsonObject = {name: sha256(members[name]).hexdigest() for name in MEMBERS}
    manifest = encoded({"format": FORMAT, "log": log.hex(), "run": run.hex(), "files": files})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in [(MANIFEST, manifest), *((name, members[name]) for name in MEMBERS)]:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), _MODE
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
