"""Which request and which trace the present work belongs to: read, handed on, and put into logs.

Source: W3C Trace Context (Recommendation), sections 3.2 and 3.3.
"""

import logging
import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

# A later version may say more after the flags; of this one nothing more is accepted.
_PARENT = re.compile(
    rb"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    rb"(?P<more>-.*)?",
    re.ASCII | re.DOTALL,
)
_MOST_BYTES = 512
_SAMPLED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceMark:
    """A request in its trace. `parent`: the caller's span, or None when the trace begins here."""

    request_id: str
    trace_id: str
    span_id: str
    parent: str | None
    is_sampled: bool

    def header(self) -> bytes:
        """What is handed on as `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}".encode("ascii")


MARK: ContextVar[TraceMark | None] = ContextVar("meshflow_trace_mark", default=None)


def marked(
    headers: Sequence[tuple[bytes, bytes]], request_id: str, *, new_trace: str, new_span: str
) -> TraceMark:
    """The mark of a request: of the caller's trace when it named one as it should, else of a new.

    What is malformed, or there twice, counts as not there; it is no reason to refuse anybody.
    """
    named = [value for name, value in headers if name == b"traceparent"]
    found = _PARENT.fullmatch(named[0]) if len(named) == 1 and len(named[0]) < _MOST_BYTES else None
    if found is None or _is_void(found):
        return TraceMark(
            request_id=request_id,
            trace_id=new_trace,
            span_id=new_span,
            parent=None,
            is_sampled=False,
        )
    return TraceMark(
        request_id=request_id,
        trace_id=found["trace"].decode("ascii"),
        span_id=new_span,
        parent=found["span"].decode("ascii"),
        is_sampled=bool(int(found["flags"], 16) & _SAMPLED),
    )


def _is_void(found: re.Match[bytes]) -> bool:
    is_longer = found["version"] == b"00" and found["more"] is not None
    nothing = b"0"
    return (
        found["version"] == b"ff"
        or is_longer
        or not found["trace"].strip(nothing)
        or not found["span"].strip(nothing)
    )


class MarkFilter(logging.Filter):
    """Adds the ids of the present request to every record that is made while it is answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        mark = MARK.get()
        if mark is not None:
            record.request_id = mark.request_id
            record.trace_id = mark.trace_id
            record.span_id = mark.span_id
        return True
