"""Export bundles taken apart, changed and put together again, and what the verifier says of them.

The form is section 13 of docs/ledger-format.md; the manifest is always made to fit, so that it is
never the reason.
"""

import io
import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from scripts.vector_bundles import tar_of
from tests.e2e.server_process import run_command, surroundings

Members = dict[str, bytes]
Lines = list[dict[str, Any]]
WHOLE, INCOMPLETE, BROKEN, UNUSABLE = 0, 2, 3, 4
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The exit code of `meshflow verify-bundle`, and its findings."""

    code: int
    findings: tuple[str, ...]


def members_of(tar: bytes) -> Members:
    """The files of a bundle."""
    found: Members = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        for one in opened:
            held = opened.extractfile(one)
            assert held is not None
            found[one.name] = held.read()
    return found


def lines_of(member: bytes) -> Lines:
    """The rows of a member."""
    return [json.loads(line) for line in member.splitlines()]


def member_of(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a member."""
    return b"".join(encoded(line) + b"\n" for line in lines)


def encoded(value: object) -> bytes:
    """Canonical JSON with free keys."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def packed(members: Members) -> bytes:
    """The tar, under a manifest that fits."""
    manifest = json.loads(members[_MANIFEST])
    manifest["files"] = {
        name: sha256(held).hexdigest() for name, held in members.items() if name != _MANIFEST
    }
    return tar_of({**members, _MANIFEST: encoded(manifest) + b"\n"})


def verified(tar: bytes, policy: Path | None, *words: str) -> Verified:
    """Run the command, in a directory of its own and with no settings."""
    with tempfile.TemporaryDirectory(prefix="mf-bundle-") as made:
        bundle = Path(made) / "run.tar"
        bundle.write_bytes(tar)
        trusted = [] if policy is None else ["--policy", str(policy)]
        done = run_command(
            "verify-bundle",
            str(bundle),
            *trusted,
            "--json",
            *words,
            environ=surroundings(Path(made) / "data"),
        )
    assert done.code in {WHOLE, INCOMPLETE, BROKEN, UNUSABLE}, done.err
    said = json.loads(done.out)["findings"]
    return Verified(code=done.code, findings=tuple(one["reason"] for one in said))
