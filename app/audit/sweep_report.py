"""What a sweep found: per log, with a bound on how much of it is told.

Threat: Ledger tampering
"""

from dataclasses import dataclass, field

from app.domain.run import JsonObject

_MOST_TOLD = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that does not hold: where, of which run, and how."""

    where: str
    run: bytes | None
    seq: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaChange:
    """A change of the database's schema, as a record of the operator log tells it."""

    seq: int
    at: str
    before: str | None
    after: str
    product: str | None

    def as_json(self) -> JsonObject:
        """For machines."""
        return {
            "seq": self.seq,
            "at": self.at,
            "from": self.before,
            "to": self.after,
            "product": self.product,
        }


@dataclass(slots=True, kw_only=True)
class LogReport:
    """One log. Counts say how much was looked at."""

    log: bytes
    tenant: str
    records: int = 0
    runs: int = 0
    batches: int = 0
    leaves: int = 0
    tiles: int = 0
    checkpoints: int = 0
    cosignatures: int = 0
    erased: int = 0  # headers or fields that are gone; their statements are sealed
    unstored: int = 0  # checkpoints in the operator log's records that have no row, and hold
    unnamed: int = 0  # records of checkpoints, unopened, that no row names; of the operator log
    signed: int = 0  # leaves under the newest checkpoint
    witnessed_at: int | None = None
    schema: list[SchemaChange] = field(default_factory=list)  # of the operator log, if opened
    broken: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every checkpoint that the operator log holds has its row, as far as was seen."""
        return not self.unstored and not self.unnamed

    def add(
        self, where: str, reason: str, run: bytes | None = None, seq: int | None = None
    ) -> None:
        """One more thing that does not hold."""
        self.broken += 1
        if len(self.findings) < _MOST_TOLD:
            self.findings.append(Finding(where=where, run=run, seq=seq, reason=reason))

    def as_json(self) -> JsonObject:
        """For machines."""
        return {
            "log": self.log.hex(),
            "tenant": self.tenant,
            "records": self.records,
            "runs": self.runs,
            "batches": self.batches,
            "leaves": self.leaves,
            "tiles": self.tiles,
            "checkpoints": self.checkpoints,
            "cosignatures": self.cosignatures,
            "erased": self.erased,
            "unstored": self.unstored,
            "unnamed": self.unnamed,
            "signed": self.signed,
            "witnessed_at": self.witnessed_at,
            "schema": [item.as_json() for item in self.schema],
            "broken": self.broken,
            "findings": [
                {
                    "where": item.where,
                    "run": None if item.run is None else item.run.hex(),
                    "seq": item.seq,
                    "reason": item.reason,
                }
                for item in self.findings
            ],
        }
