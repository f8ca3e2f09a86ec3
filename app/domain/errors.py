"""Every error MeshFlow raises on purpose, in one tree that knows nothing of HTTP.

MeshFlowError
├── ConfigurationError          a setting is missing, malformed or contradictory: refuse to start
├── NotFoundError               no such object for this tenant (another tenant's looks the same)
├── ForbiddenError              the key lacks the scope
├── InvalidSubmissionError      well-formed, but asks for something that does not exist
├── KeyMalformedError           an idempotency key that cannot be read
├── KeyReusedError              an idempotency key that began another request
├── KeyErasedError              an idempotency key whose request has no digest any more
├── PreconditionRequiredError   the change has to say which version it means
├── PreconditionFailedError     another version is in force than the change means
├── ApprovalRefusedError        the gate does not let a decision on an approval count
├── PolicyDeniedError           the gate refused at admission; the refusal is a recorded run
├── LedgerError
│   ├── LedgerUnavailableError  the ledger could not be reached: nothing was done, nothing will be
│   ├── LedgerBrokenError       what was read does not verify; carries the named break
│   ├── ErasureRefusedError     a lawful reason forbids the erasure, or the rows are not as said
│   ├── KeyRetiredError         a key was retired that something was to be wrapped under
│   ├── StaleEpochError         somebody else owns the run now: stop at once
│   ├── WriterRetiredError      this process's key was retired: it has to start anew
│   ├── KeyBusyError            the first request with this idempotency key is not answered yet
│   │   └── KeyTakenError       another process has just answered it: look again
│   ├── ApprovalClosedError     it was decided already, or its time is over
│   ├── NotSequencedError       no signed checkpoint covers what is asked for yet: come back
│   ├── StaleTermError          another sequencer leads: this one must not write
│   └── IllegalTransitionError  the run's state does not allow this change
├── RunParkedError              a run cannot go on before somebody has decided: it is parked
├── KeyStoreError               a key is missing or cannot be written
├── RecordFormError             a stored record of facts is not of the form that is written
├── ConditionError              a tenant's condition has no answer; the gate denies
├── ConditionRefusedError       a condition is not one that may be asked
├── PolicyRefusedError          a policy is not written as one; tells every part that is amiss
├── SecondPersonError           what loosens a policy is not confirmed by the key that asked for it
├── WitnessError                a checkpoint was not cosigned; the sequencer's own business
│   ├── WitnessUnavailableError no answer, or one that holds no cosignature: try again later
│   ├── WitnessRefusedError     the witness will not cosign this checkpoint
│   └── WitnessAheadError       the witness has cosigned a larger log than ours: write nothing
├── ModelError                  the model call failed; the run fails with its code
├── ToolError                   a tool could not do its work; the model is told, the caller is not
├── UnreadableShellError        a shell command cannot be read for certain, so it is refused
├── ConfinementError            a worker could not be confined: nothing of the call was run
├── EgressError                 a request did not leave, or its answer may not be used
└── OverloadedError             too much is in flight: come back later
    ├── TenantBusyError         too much of this tenant is in flight
    └── ToolsBusyError          too many programs wait for a worker
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.receipt import RecordReceipt


class MeshFlowError(Exception):
    """Root of everything MeshFlow raises on purpose. Its text never holds content or secrets."""


class ConfigurationError(MeshFlowError):
    """A setting is missing, malformed or contradicts another."""


class NotFoundError(MeshFlowError):
    """No such object for this tenant."""


class ForbiddenError(MeshFlowError):
    """The key is good but lacks the scope that the operation needs."""

    def __init__(self, needed_scope: str) -> None:
        super().__init__(f"this key lacks the scope '{needed_scope}'")
        self.needed_scope = needed_scope


class InvalidSubmissionError(MeshFlowError):
    """The submission names something that this deployment does not have, or contradicts itself."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(reason)
        self.pointer = pointer
        self.reason = reason


class KeyMalformedError(MeshFlowError):
    """The Idempotency-Key is not one string of 1 to 255 characters in quotes, sent once."""

    def __init__(self) -> None:
        super().__init__('an Idempotency-Key is a string in quotes: "..." of 1 to 255 characters')


class KeyReusedError(MeshFlowError):
    """The idempotency key began another request."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key came with another request before")


class KeyErasedError(MeshFlowError):
    """What the idempotency key began was erased: nothing is told of it, and nothing begun anew."""

    def __init__(self) -> None:
        super().__init__("content of what this Idempotency-Key began was erased")


class PreconditionRequiredError(MeshFlowError):
    """A change of something that others change too, without the version that it means."""

    def __init__(self) -> None:
        super().__init__("If-Match must name the entity tag that the change means")


class PreconditionFailedError(MeshFlowError):
    """Somebody else changed it since; nothing was done."""

    def __init__(self) -> None:
        super().__init__("it was changed since: read it again")


class PolicyDeniedError(MeshFlowError):
    """The gate refused a submission; the refusal is a closed run with a ledger of its own."""

    def __init__(
        self, run_id: str, rules: tuple[str, ...], code: str, receipt: RecordReceipt
    ) -> None:
        super().__init__("the policy gate refused this task")
        self.receipt = receipt
        self.run_id = run_id
        self.rules = rules
        self.code = code


class ApprovalRefusedError(MeshFlowError):
    """The gate does not let this decision count; recorded. `code` is its reason."""

    def __init__(self, code: str, rules: tuple[str, ...]) -> None:
        super().__init__(f"this decision does not count ({code})")
        self.code = code
        self.rules = rules


class RunParkedError(MeshFlowError):
    """The run cannot go on before somebody has decided. Whoever drives it parks it, and lets go.

    `until`: it goes on then in any case; None when the run's own deadline is the end.
    """

    def __init__(self, why: str = "nobody has decided", until: datetime | None = None) -> None:
        super().__init__(why)
        self.until = until


class LedgerError(MeshFlowError):
    """Anything that keeps the ledger from being written or believed."""


class LedgerUnavailableError(LedgerError):
    """The database did not answer; whatever depended on it was not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainBreak:
    """The first place where a run's stored records stop proving themselves."""

    seq: int
    reason: str


class LedgerBrokenError(LedgerError):
    """What was read does not verify. Carries the break, never the content."""

    def __init__(self, found: ChainBreak) -> None:
        super().__init__(f"the ledger is broken at seq {found.seq}: {found.reason}")
        self.found = found


class ErasureRefusedError(LedgerError):
    """Nothing was erased. `code` is what the receipt says."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the erasure was refused: {code}")
        self.code = code


class KeyRetiredError(LedgerError):
    """Nothing was written: the key to wrap under is on its way out. Wrap under the newest one."""


class StaleEpochError(LedgerError):
    """Another owner raised the run's epoch: this one must stop without writing."""


class WriterRetiredError(LedgerError):
    """The key with which this process signs was retired: nothing it appends is accepted."""


class KeyBusyError(LedgerError):
    """The first request with this idempotency key is not answered yet. Nothing was done."""

    def __init__(self) -> None:
        super().__init__("the first request with this Idempotency-Key is not answered yet")


class KeyTakenError(KeyBusyError):
    """Another process has answered the first request a moment ago: its answer is there."""


class ApprovalClosedError(LedgerError):
    """Nothing was decided: somebody else has, or the time is over, or the run is."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the approval is {state}")
        self.state = state


class NotSequencedError(LedgerError):
    """No signed checkpoint covers what a proof is asked for. Nothing is wrong: it takes seconds."""

    def __init__(self) -> None:
        super().__init__("no signed checkpoint covers this yet")


class RotationRefusedError(LedgerError):
    """A key cannot give way to the next one now; says why. Nothing was recorded."""


class StaleTermError(LedgerError):
    """Another sequencer leads: this one writes nothing more."""


class IllegalTransitionError(LedgerError):
    """The run's present state does not allow the change that was asked for."""


class KeyStoreError(MeshFlowError):
    """A key could not be read, written or destroyed."""


class WitnessError(MeshFlowError):
    """A witness did not cosign. The sequencer deals with it; no caller of the API hears of it."""


class WitnessUnavailableError(WitnessError):
    """No answer in time, or an answer that proves nothing. Nothing is known of the witness."""


class WitnessRefusedError(WitnessError):
    """The witness answered that it will not cosign. `is_fork`: our log contradicts its memory."""

    def __init__(self, status: int, *, is_fork: bool) -> None:
        super().__init__(f"the witness refused the checkpoint with status {status}")
        self.status = status
        self.is_fork = is_fork


class WitnessAheadError(WitnessError):
    """The witness says that it cosigned a size above ours: this log has lost its end."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the witness has cosigned a log of size {size}, above ours")
        self.size = size


class ModelError(MeshFlowError):
    """A model call failed. `code` is what the run's record and its reader are told.

    `is_put_off`: the provider was too busy or broken to begin, and not a byte of a reply came;
    `retry_after_seconds`: for how long it asked to be left alone.
    """

    def __init__(
        self, code: str, *, is_put_off: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(f"the model call failed: {code}")
        self.code = code
        self.is_put_off = is_put_off
        self.retry_after_seconds = retry_after_seconds


class ToolError(MeshFlowError):
    """A tool could not do its work; the text is shown to the model and holds no host path."""


class UnreadableShellError(MeshFlowError):
    """A shell command is not well formed, too large, or read differently by different shells."""


class ConfinementError(MeshFlowError):
    """A layer of the sandbox could not be applied, so the program was not run. Names the layer."""


class EgressError(MeshFlowError):
    """Nothing left, or nothing that may be used came back. Holds no address and no URL.

    `code` is one of `app.egress.faults.Fault`; the text says the same to a model or an operator.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class OverloadedError(MeshFlowError):
    """Too much is in flight; nothing was admitted."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("too many runs are in flight")
        self.retry_after_seconds = retry_after_seconds


class TenantBusyError(OverloadedError):
    """As many submissions of this tenant as may be in flight in a process are; nothing was done."""


class ToolsBusyError(OverloadedError):
    """As many programs as may wait for a worker are waiting; a run that would add to them waits."""


class RecordFormError(MeshFlowError):
    """A stored record of facts is not of the form this software writes."""


class ConditionError(MeshFlowError):
    """A tenant's condition could not be answered; `code` says why: `timeout`, `missing`, ..."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class ConditionRefusedError(MeshFlowError):
    """A tenant's condition is too long, unbounded, of an unknown name, or no expression at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPart:
    """One part of a policy that cannot stand: where, and why. Never its content."""

    pointer: str
    reason: str


class PolicyRefusedError(MeshFlowError):
    """A policy cannot be taken in, with every part that is amiss. Nothing was stored."""

    def __init__(self, parts: Sequence[RefusedPart]) -> None:
        super().__init__("this is no policy that can be taken in")
        self.parts = tuple(parts)


class SecondPersonError(MeshFlowError):
    """What loosens a policy is confirmed with another key than the one that asked for it."""

    def __init__(self) -> None:
        super().__init__("another key has to confirm what loosens the policy")
