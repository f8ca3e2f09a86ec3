"""What each level of erasure does to each table; a table that is not here fails a test.

Threat: PHI leakage in audit logs
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Fate(StrEnum):
    """What becomes of the rows that an erasure is about."""

    KEPT = "kept"  # holds no content, or is not about one run
    PARTLY = "partly"  # chosen rows go, the others are sealed anew under a new key
    EMPTIED = "emptied"  # hashes stay, everything else is NULL
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """The fate of a table's rows under each level."""

    anonymize_run: Fate
    delete_run: Fate
    delete_tenant: Fate = Fate.GONE


_ALL_OF_A_RUN = Fates(anonymize_run=Fate.KEPT, delete_run=Fate.GONE)
_OF_THE_LOG = Fates(anonymize_run=Fate.KEPT, delete_run=Fate.KEPT)

REGISTRY: Final[Mapping[str, Fates]] = MappingProxyType(
    {
        "record": Fates(anonymize_run=Fate.KEPT, delete_run=Fate.EMPTIED),
        "payload": Fates(anonymize_run=Fate.PARTLY, delete_run=Fate.GONE),
        "run_key": Fates(anonymize_run=Fate.PARTLY, delete_run=Fate.GONE),
        "run_result": Fates(anonymize_run=Fate.GONE, delete_run=Fate.GONE),
        # Content only while the run goes on, when nothing of it may be erased; then a key's id.
        "run_work": Fates(anonymize_run=Fate.GONE, delete_run=Fate.GONE),
        "run_file": Fates(anonymize_run=Fate.GONE, delete_run=Fate.GONE),  # likewise
        # Keyed digests of what the metadata said.
        "run_label": Fates(anonymize_run=Fate.GONE, delete_run=Fate.GONE),
        "runs": _ALL_OF_A_RUN,
        "run_command": _ALL_OF_A_RUN,
        "approval": _ALL_OF_A_RUN,  # ids, states, times and a digest under the run's key
        "webhook_delivery": _ALL_OF_A_RUN,  # ids, states and times of it
        "run_hold": _ALL_OF_A_RUN,  # a hold forbids both, so there is none left
        "batch": _OF_THE_LOG,
        "leaf": _OF_THE_LOG,
        "left_out": _OF_THE_LOG,  # that a run is broken, and since when
        "tile": _OF_THE_LOG,
        "log_head": _OF_THE_LOG,
        "checkpoint": _OF_THE_LOG,
        "cosignature": _OF_THE_LOG,
        "erasure": _OF_THE_LOG,  # codes, ids and a salted hash; the receipt must last
        "kek_retirement": _OF_THE_LOG,
        "rate_use": _OF_THE_LOG,  # how often a key asked in this minute and the one before
        # Digests under a key that lives two days, and ids; with content of a run the digest of the
        # request that brought it goes. Rows of stops and erasures name no run and last 24 hours.
        "idempotency": Fates(anonymize_run=Fate.EMPTIED, delete_run=Fate.GONE),
        "webhook_endpoint": _OF_THE_LOG,  # sealed under a key of the tenant
        "policy_version": _OF_THE_LOG,  # what a tenant wrote; runs name it by its digest
        "policy_activation": _OF_THE_LOG,
        "tenants": _OF_THE_LOG,
        # One row of the operator log, which is no tenant's.
        "sequencer_state": Fates(
            anonymize_run=Fate.KEPT, delete_run=Fate.KEPT, delete_tenant=Fate.KEPT
        ),
    }
)
# Tables that are not about a tenant at all. The queue's hold ids of open runs, and for an hour
# those of tenants that had some.
NOT_A_TENANTS: Final = frozenset(
    {
        "writer_key",
        "alembic_version",
        *("pgqueuer", "pgqueuer_log", "pgqueuer_schedules", "pgqueuer_statistics"),
    }
)
