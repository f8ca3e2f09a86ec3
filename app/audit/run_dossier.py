"""What the ledger gives of a run once it has verified.

Threat: Ledger tampering
"""

from dataclasses import dataclass

from app.audit.inclusion import Inclusion
from app.audit.integrity import Integrity
from app.audit.witnessed_times import TimeDoubt
from app.domain.run import OutputState, RunId, RunRow, Usage
from app.ledger.chain import Resume, StoredRun, VerifiedChain, VerifiedRecord
from app.ledger.run_account import RunAccount
from app.storage.place_store import SignedHead


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDossier:
    """A run as it can be shown: its row, its verified records, and its output if it has one."""

    run: RunRow
    chain: VerifiedChain
    integrity: Integrity
    output: str | None  # the released output in full, while it is kept
    output_state: OutputState
    digest_key: bytes  # for digests that die with the run
    times: TimeDoubt | None = None  # asked for by a verification only


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookmark:
    """How far a reader has come: where the chain stands, and what it has said of the run."""

    head: Resume
    account: RunAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """New verified records of a run, and where the next look begins."""

    run: RunRow
    records: tuple[VerifiedRecord, ...]
    bookmark: Bookmark


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """A deleted run: how many records it had, and the chain over their hashes, which holds."""

    run_id: RunId
    records: int
    head: Resume
    integrity: Integrity


@dataclass(frozen=True, slots=True, kw_only=True)
class ReopenedRun:
    """What somebody needs who takes a run over: where its ledger ends, its key, what it used."""

    head: Resume
    run_key: bytes
    spent: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A run that verified, as it is stored: what an export is made of."""

    stored: StoredRun
    run_key: bytes
    inclusion: Inclusion
    newest: SignedHead | None  # the newest checkpoint of the log
