"""What a verification found, and the words for what that shows and what it does not.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from app.offline.strict_json import Json

_MOST_FINDINGS = 200


class Result(IntEnum):
    """The exit codes of section 13."""

    VALID = 0
    INCOMPLETE = 2
    TAMPERED = 3
    UNUSABLE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that does not hold, or that cannot be shown."""

    where: str
    seq: int | None
    reason: str


@dataclass(slots=True, kw_only=True)
class Report:
    """Grows while the bundle is checked; the worst finding decides."""

    result: Result = Result.VALID
    log: str | None = None
    run: str | None = None
    findings: list[Finding] = field(default_factory=list)
    records: int = 0
    witnessed: int = 0
    witnessed_at: int | None = None
    unwitnessed_since: str | None = None  # what the first record says that is not; as it is written
    erased: list[dict[str, Json]] = field(default_factory=list)
    deleted: bool = False  # the whole run, by a statement that names each of its records
    last_kind: str | None = None

    def broken(self, where: str, seq: int | None, reason: str) -> None:
        """Something does not hold."""
        self._find(Result.TAMPERED, where, seq, reason)

    def missing(self, where: str, seq: int | None, reason: str) -> None:
        """Something cannot be shown."""
        self._find(Result.INCOMPLETE, where, seq, reason)

    def _find(self, result: Result, where: str, seq: int | None, reason: str) -> None:
        self.result = max(self.result, result)
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(Finding(where=where, seq=seq, reason=reason))

    def as_json(self) -> dict[str, Json]:
        """The report as `--json` prints it."""
        findings: list[Json] = [
            {"where": found.where, "seq": found.seq, "reason": found.reason}
            for found in self.findings
        ]
        return {
            "result": self.result.name.lower(),
            "exit": int(self.result),
            "findings": findings,
            "proves": list[Json](self.proves()),
            "does_not_prove": list[Json](self.does_not_prove()),
            "records": self.records,
            "witnessed": self.witnessed,
            "witnessed_at": self.witnessed_at,
            "unwitnessed_since": self.unwitnessed_since,
            "erased": list[Json](self.erased),
            "deleted": self.deleted,
        }

    def proves(self) -> Sequence[str]:
        """What a reader may rely on."""
        if self.result not in {Result.VALID, Result.INCOMPLETE}:
            return ()
        said = [
            f"these are records of run {self.run} in log {self.log}",
            "each record follows from the one before it, and none between them is missing",
            "a run of so many records was here and was deleted; nothing is left of what they said"
            if self.deleted
            else "what is disclosed is what was recorded",
        ]
        if self.witnessed:
            said.append(
                f"{self.witnessed} of {self.records} records stood as they are here in a tree that "
                "the witnesses of the policy have seen"
            )
        if self.result is Result.VALID:
            said.append("each batch was signed by a writer that a pinned key certifies")
        if self.erased:
            said.append("what is gone was taken by an erasure that a pinned key signed")
        if self.result is Result.INCOMPLETE:
            said.append("all of this only as far as the findings leave it")
        return said

    def does_not_prove(self) -> Sequence[str]:
        """What no bundle can show, and what this one does not."""
        if self.result not in {Result.VALID, Result.INCOMPLETE}:
            return ("anything: something does not hold, or the input cannot be used",)
        said = [
            "that what was recorded was true when it was written",
            "that no retirement or rotation of a key was left out of the bundle",
        ]
        if self.last_kind != "run.finished" and not self.deleted:
            said.append("that no record of the run came after the last one here")
        if self.witnessed < self.records:
            said.append(
                f"that {self.records - self.witnessed} records which no witness has seen were not "
                "rewritten by somebody who holds the database and all its keys"
            )
        if self.deleted:
            said.append("anything that the run said or did, or when")
        elif self.erased:
            said.append("what the erased fields held")
        return said
