"""Sends spans to an OpenTelemetry collector. Imported only where one is configured (extra `otel`).

All spans of a run are one trace, whose id is the run's: whichever processes drove it.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from app.domain.record import RunEvent
from app.domain.run import RunId
from app.telemetry.genai_mapping import RunSpans, SpanFacts
from app.telemetry.trace_context import MARK, TraceMark

_log = logging.getLogger("meshflow")
EXPORT_SECONDS = 10
DELAY_MILLISECONDS = 1000
_SPAN_BITS = (1 << 64) - 1


class _RunIds(IdGenerator):
    """The ids of a run's own span come from the run, all others by chance."""

    def __init__(self) -> None:
        self.root: RunId | None = None
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        """Only a run's own span begins a trace."""
        return self._random.generate_trace_id() if self.root is None else self.root.int

    def generate_span_id(self) -> int:
        """Of the run, or by chance."""
        return self._random.generate_span_id() if self.root is None else _span_of(self.root)


class SpanExporter:
    """Tells a collector what was recorded of runs. Never raises, and waits for nobody."""

    def __init__(self, endpoint: str, version: str) -> None:
        self._spans, self._ids = RunSpans(), _RunIds()
        # Flushed at the end of the process, by the library.
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource({"service.name": "meshflow", "service.version": version}),
            id_generator=self._ids,
        )
        address = f"{endpoint.rstrip('/')}/v1/traces"
        exporter = OTLPSpanExporter(endpoint=address, timeout=EXPORT_SECONDS)
        provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=DELAY_MILLISECONDS)
        )
        self._tracer = provider.get_tracer("meshflow", version)

    def told(self, run: RunId, events: Sequence[tuple[int, RunEvent]], at: datetime) -> None:
        """These records are durable."""
        try:
            for facts in self._spans.of(run, events, at, MARK.get()):
                self._emit(facts)
        except Exception as error:  # noqa: BLE001 - a run does not end because nobody can be told of it
            _log.warning("a span was not told: %s", type(error).__name__)

    def _emit(self, facts: SpanFacts) -> None:
        parent = SpanContext(
            trace_id=facts.run.int,
            span_id=_span_of(facts.run),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
        self._ids.root = facts.run if facts.is_root else None
        try:
            span = self._tracer.start_span(
                facts.name,
                context=None if facts.is_root else set_span_in_context(NonRecordingSpan(parent)),
                kind=SpanKind.CLIENT if facts.is_call_out else SpanKind.INTERNAL,
                attributes=facts.attributes,
                links=_links(facts.caller),
                start_time=_nanoseconds(facts.began),
            )
        finally:
            self._ids.root = None
        if "error.type" in facts.attributes:
            span.set_status(StatusCode.ERROR)
        span.end(_nanoseconds(facts.ended))


def _links(caller: TraceMark | None) -> list[Link]:
    if caller is None or caller.parent is None:
        return []
    sampled = TraceFlags.SAMPLED if caller.is_sampled else TraceFlags.DEFAULT
    theirs = SpanContext(
        trace_id=int(caller.trace_id, 16),
        span_id=int(caller.parent, 16),
        is_remote=True,
        trace_flags=TraceFlags(sampled),
    )
    return [Link(theirs)]


def _span_of(run: RunId) -> int:
    return run.int & _SPAN_BITS or 1


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6) * 1000
