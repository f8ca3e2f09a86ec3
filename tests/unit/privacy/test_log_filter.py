"""No door of a log record lets a secret through."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from app.privacy.log_filter import JsonLines, SecretFilter
from app.privacy.scrubber import Scrubber
from tests.unit.privacy.made_secrets import made

SECRET = made("github-token")


@pytest.fixture
def sink() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(sink: io.StringIO) -> Iterator[logging.Logger]:
    handler = logging.StreamHandler(sink)
    handler.addFilter(SecretFilter(Scrubber([])))
    handler.setFormatter(JsonLines())
    logger = logging.Logger("meshflow.test")  # noqa: LOG001  # not in the process's tree
    logger.addHandler(handler)
    yield logger
    handler.close()


def _line(sink: io.StringIO) -> dict[str, object]:
    lines = sink.getvalue().splitlines()
    assert len(lines) == 1
    assert SECRET not in lines[0]
    parsed: dict[str, object] = json.loads(lines[0])
    return parsed


class Shown:
    def __str__(self) -> str:
        return f"shown {SECRET}"


def _fail() -> None:
    raise ValueError(SECRET) from KeyError(SECRET)


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


def test_message_and_arguments_are_scrubbed(log: logging.Logger, sink: io.StringIO) -> None:
    log.warning("key %s and %s", SECRET, Shown())
    line = _line(sink)
    assert line["event"] == "key [SECRET:github-token] and shown [SECRET:github-token]"
    assert (line["level"], line["logger"]) == ("warning", "meshflow.test")
    assert isinstance(line["time"], float)


def test_a_secret_that_only_the_joined_message_holds_is_found(
    log: logging.Logger, sink: io.StringIO
) -> None:
    log.warning("password=%s", "hunter22")
    assert _line(sink)["event"] == "password=[SECRET:keyword]"


def test_extra_fields_are_scrubbed_whatever_they_are(
    log: logging.Logger, sink: io.StringIO
) -> None:
    extra = {"plain": SECRET, "deep": {"a": [SECRET]}, "thing": Shown(), "n": 3, SECRET: 1}
    log.warning("x", extra=extra)
    line = _line(sink)
    assert line["deep"] == {"a": ["[SECRET:github-token]"]}
    assert line["n"] == 3
    assert line["[SECRET:github-token]"] == 1


def test_exception_and_stack_are_scrubbed(log: logging.Logger, sink: io.StringIO) -> None:
    try:
        _fail()
    except ValueError:
        log.exception("failed", stack_info=True)
    line = _line(sink)
    assert "[SECRET:github-token]" in str(line["exception"])
    assert "stack" in line


def test_a_record_that_cannot_be_scrubbed_is_withheld(
    log: logging.Logger, sink: io.StringIO
) -> None:
    log.warning("a %s", Unshowable(), extra={"note": SECRET})
    line = _line(sink)
    assert line["event"] == "[log record withheld]"
    assert "note" not in line


def test_a_record_with_the_wrong_number_of_arguments_is_withheld(
    log: logging.Logger, sink: io.StringIO
) -> None:
    log.warning("%s %s", SECRET)  # noqa: PLE1206  # the mistake is what is tested
    assert _line(sink)["event"] == "[log record withheld]"


def test_without_the_filter_the_secret_would_be_written(
    log: logging.Logger, sink: io.StringIO
) -> None:
    log.handlers[0].filters.clear()
    log.warning("key %s", SECRET)
    assert SECRET in sink.getvalue()
