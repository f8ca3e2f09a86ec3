"""What the ledger gives of a run once it has verified.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from app.audit.inclusion import Inclusion
from app.audit.integrity import Integrity
from app.audit.witnessed_times import TimeDoubt
from app.domain.run import OutputState, RunId, RunRow, Usage
from app.ledger.chain import Resume, StoredRun, VerifiedChain, VerifiedRecord
from app.ledger.run_account import RunAccount
from app.storage.place_store import Placement, SignedHead


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
    policy_digest: str
    records: Sequence[VerifiedRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A run that verified, as it is stored: what an export is made of.

    `run_key`: None when the run was deleted and nothing can be opened any more.
    """

    stored: StoredRun
    run_key: bytes | None
    inclusion: Inclusion
    newest: SignedHead | None  # the newest checkpoint of the log

    @classmethod
    def of(
        cls,
        stored: StoredRun,
        run_key: bytes | None,
        inclusion: Inclusion,
        placement: Placement,
    ) -> Self:
        """What was read of a run, together with where it stands."""
        newest = None if placement.state is None else placement.state.checkpoint
        return cls(stored=stored, run_key=run_key, inclusion=inclusion, newest=newest)
