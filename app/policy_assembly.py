"""What has to do with tenants' policies in one process, built once, by hand."""

import os
import time
from dataclasses import dataclass

from app.audit.decision_history import DecisionHistory
from app.audit.policy_trials import PolicyTrials
from app.bundles.bundle_loading import BundleLoader
from app.bundles.bundle_shelf import BundleShelf
from app.bundles.policy_desk import PolicyDesk, PolicyDeskParts
from app.bundles.simulation import Simulation
from app.ledger_assembly import LedgerParts, utc_now
from app.policy.decide import decide
from app.policy.gate import DascGate
from app.runs.identifiers import new_run_id
from app.runs.run_policy import RunPolicies, RunPolicyParts
from app.storage.policy_store import PolicyStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What routes ask, and what runs are judged by."""

    desk: PolicyDesk
    trials: PolicyTrials
    shelf: BundleShelf
    runs: RunPolicies


def policy_loader() -> BundleLoader:
    """What reads policies, with the gate's own decision."""
    return BundleLoader(decide, time.thread_time_ns)


def build_policies(parts: LedgerParts, gate: DascGate) -> Policies:
    """The policies of all tenants. `gate`: under what stands where a tenant activated nothing."""
    store, loader = PolicyStore(parts.database), policy_loader()
    shelf = BundleShelf(store, loader, gate.bundle, time.monotonic)
    history = DecisionHistory(parts.replay, shelf.by_digest)
    desk = PolicyDesk(
        PolicyDeskParts(
            store=store,
            shelf=shelf,
            loader=loader,
            admin_log=parts.admin_log,
            simulation=lambda before, after: Simulation(
                before, after, decide, time.perf_counter_ns
            ),
            history=history,
            now=utc_now,
            new_id=lambda: new_run_id(utc_now(), os.urandom),
        )
    )
    trials = PolicyTrials(
        history=history,
        shelf=shelf,
        loader=loader,
        decide=decide,
        clock_ns=time.perf_counter_ns,
    )
    runs = RunPolicies(RunPolicyParts(gate=gate, shelf=shelf, desk=desk))
    return Policies(desk=desk, trials=trials, shelf=shelf, runs=runs)
