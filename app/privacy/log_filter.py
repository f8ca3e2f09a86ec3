"""Keeps secrets out of the log: a filter for the root handler and a formatter of JSON lines.

The filter fails closed: a record it cannot scrub says "[log record withheld]" and nothing else.
It must sit on the handler, not on a logger: filters of loggers do not see their children's records.

Threat: PHI leakage in audit logs
"""

import json
import logging

from app.domain.run import Json
from app.privacy.scrubber import Scrubber

WITHHELD_RECORD = "[log record withheld]"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class SecretFilter(logging.Filter):
    """Scrubs a record in place; every record passes, withheld ones without their content."""

    def __init__(self, scrubber: Scrubber) -> None:
        super().__init__()
        self._scrubber = scrubber
        self._exceptions = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true: what cannot be scrubbed is emptied instead of lost."""
        try:
            self._scrub(record)
        except Exception:  # noqa: BLE001  # a __str__ or repr of any kind may raise anything
            _empty(record)
        return True

    def _scrub(self, record: logging.LogRecord) -> None:
        clean = self._scrubber.scrub_text
        message = clean(record.getMessage())
        trace = record.exc_text
        if record.exc_info and not trace:
            trace = self._exceptions.formatException(record.exc_info)
        trace = clean(trace) if trace else None
        stack = clean(str(record.stack_info)) if record.stack_info else None
        names = {
            name: clean(str(vars(record)[name])) for name in ("name", "threadName", "processName")
        }
        extra: dict[str, Json] = {
            name: self._json(value) for name, value in vars(record).items() if name not in _STANDARD
        }
        # The clear values leave the record only when all of them could be read.
        record.msg, record.args, record.exc_info = message, (), None
        record.exc_text, record.stack_info = trace, stack
        vars(record).update(names)
        for name, value in extra.items():
            safe = clean(name)
            if safe != name:
                delattr(record, name)
            setattr(record, safe, value)

    def _json(self, value: object) -> Json:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self._scrubber.scrub_text(value)
        if isinstance(value, dict | list):
            scrubbed: Json = json.loads(self._scrubber.scrub(value).value)
            return scrubbed
        return self._scrubber.scrub_text(str(value))


def _empty(record: logging.LogRecord) -> None:
    for name in [name for name in vars(record) if name not in _STANDARD]:
        delattr(record, name)
    record.msg, record.args = WITHHELD_RECORD, ()
    record.exc_info = record.exc_text = record.stack_info = None


class JsonLines(logging.Formatter):
    """One JSON object a line: time (epoch seconds), level, logger, event, then extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a newline; a record no filter has seen is written all the same."""
        line: dict[str, object] = {
            name: value for name, value in vars(record).items() if name not in _STANDARD
        }
        line |= {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, ensure_ascii=True, separators=(",", ":"), default=str)
