"""What an answer that is given again is made from: the run's verified records, and nothing else."""

from app.api.entry_views import entry_of
from app.audit.run_dossier import RunDossier
from app.domain.errors import PolicyDeniedError
from app.domain.receipt import RecordReceipt
from app.domain.run import public_run_id


def refusal_of(dossier: RunDossier) -> PolicyDeniedError:
    """The refusal that a run was submitted to, as its last record tells it."""
    decision = entry_of(dossier.chain.records[-1]).decision
    rules = () if decision is None else tuple(decision.rules)
    code = dossier.run.error_code or ""
    return PolicyDeniedError(public_run_id(dossier.run.run_id), rules, code, receipt_again(dossier))


def receipt_again(dossier: RunDossier) -> RecordReceipt:
    """The receipt of a run that was submitted before, without its batch."""
    first, run = dossier.chain.records[0], dossier.run
    return RecordReceipt(
        log=run.tenant_id.bytes,
        run=run.run_id.bytes,
        seq=first.seq,
        rc=first.rc,
        chain=first.chain,
        share=None,
    )
