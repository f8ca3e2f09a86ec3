"""The figures of one process, as Prometheus reads them: names, and never content.

Whatever is counted here is counted where it happens; what the database knows is put in when
somebody asks. A tenant is named in a label for so many tenants only, the others are one sum.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_TENANTS = 50
OTHERS = "(others)"  # no tenant can have this name
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

REGISTRY = CollectorRegistry()

LEDGER_SIZE = Gauge("meshflow_ledger_size", "Leaves of the operator log.", registry=REGISTRY)
UNWITNESSED_AGE = Gauge(
    "meshflow_ledger_unwitnessed_age_seconds",
    "Age of the oldest operator checkpoint that no quorum of witnesses has cosigned.",
    registry=REGISTRY,
)
UNSEQUENCED_AGE = Gauge(
    "meshflow_ledger_unsequenced_age_seconds",
    "Time since the sequencer last moved its watermark.",
    registry=REGISTRY,
)
DATABASE_ANSWERS = Gauge(
    "meshflow_database_answers",
    "1 when the figures that come from the database are of now, 0 when it did not answer.",
    registry=REGISTRY,
)
QUEUE_AGE = Gauge(
    "meshflow_queue_age_seconds",
    "Time for which the oldest run has waited to be begun, in the whole deployment.",
    registry=REGISTRY,
)
RUNS_WAITING = Gauge(
    "meshflow_runs_waiting", "Runs that wait to be begun.", ["tenant"], registry=REGISTRY
)
RUNS_RUNNING = Gauge("meshflow_runs_running", "Runs under way.", ["tenant"], registry=REGISTRY)
FENCE_REFUSALS = Counter(
    "meshflow_fence_refusals",
    "Records that were refused because another process owns the run.",
    registry=REGISTRY,
)
UNKNOWN_OUTCOMES = Counter(
    "meshflow_unknown_outcomes",
    "Calls of tools that were recorded with an unknown outcome.",
    registry=REGISTRY,
)
COMMIT_SECONDS = Histogram(
    "meshflow_commit_seconds",
    "From sending records to the database to their commit.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
POOL_WAIT_SECONDS = Histogram(
    "meshflow_pool_wait_seconds",
    "Wait for a connection of the pool.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
OUTBOX_WAITING = Gauge(
    "meshflow_webhook_outbox",
    "Deliveries that wait for an attempt, counted to 100,000.",
    registry=REGISTRY,
)
OUTBOX_AGE = Gauge(
    "meshflow_webhook_oldest_seconds",
    "Time for which the oldest delivery that is not ended has been tried.",
    registry=REGISTRY,
)
DEAD_LETTERS = Gauge(
    "meshflow_webhook_dead_letters",
    "Deliveries that were given up and are still kept, counted to 100,000.",
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Counter(
    "meshflow_webhook_attempts",
    "Attempts to deliver, by what came of them.",
    ["outcome"],
    registry=REGISTRY,
)
STREAMS = Gauge("meshflow_streams", "Event streams that are open here.", registry=REGISTRY)
DRAINING = Gauge("meshflow_draining", "1 while this process leaves.", registry=REGISTRY)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLoad:
    """How many runs of a tenant wait and are under way."""

    tenant: str
    waiting: int
    running: int


@contextmanager
def timed(meter: Histogram) -> Iterator[None]:
    """Tell the meter how long the block took, when it does not raise."""
    began = perf_counter()
    yield
    meter.observe(perf_counter() - began)


def show_loads(loads: Sequence[TenantLoad]) -> None:
    """The tenants with the most runs by name, all others as one sum; who has none is left out."""
    loads = sorted(loads, key=lambda load: (-load.waiting - load.running, load.tenant))
    named, rest = list(loads[:MOST_TENANTS]), loads[MOST_TENANTS:]
    if rest:
        waiting, running = sum(load.waiting for load in rest), sum(load.running for load in rest)
        named.append(TenantLoad(tenant=OTHERS, waiting=waiting, running=running))
    RUNS_WAITING.clear()
    RUNS_RUNNING.clear()
    for load in named:
        RUNS_WAITING.labels(load.tenant).set(load.waiting)
        RUNS_RUNNING.labels(load.tenant).set(load.running)


def exposition() -> bytes:
    """All figures in the text format of CONTENT_TYPE."""
    text: bytes = generate_latest(REGISTRY)
    return text
