from argparse import Namespace
from pathlib import Path

import pytest

from app.cli.http_client import api_client, parse_events, plain, read_key
from app.cli.invocation import CommandError, Invocation


def test_events_are_read_with_their_seq_kind_and_entry() -> None:
    lines = [
        ": still here",
        "",
        "id: 0",
        "event: run.submitted",
        'data: {"seq":0}',
        "",
        "id: 1",
        "event:run.finished",
        'data:{"seq":1,',
        'data: "outcome":"succeeded"}',
        "",
    ]
    found = [(event.seq, event.kind, event.data) for event in parse_events(iter(lines))]
    assert found == [
        (0, "run.submitted", {"seq": 0}),
        (1, "run.finished", {"seq": 1, "outcome": "succeeded"}),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["event: run.started", "data: not json", ""],
        ["event: run.started", "data: [1]", ""],
        ["data: {}", ""],
        ["event: run.started", "data: {}"],  # cut before its end: it was never whole
    ],
)
def test_what_is_no_whole_entry_is_no_event(lines: list[str]) -> None:
    assert list(parse_events(iter(lines))) == []


def test_an_output_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[2Jb\x07\u202ec\nd\te\r") == "a\\x1b[2Jb\\x07\\x202ec\nd\te\\x0d"


def test_a_key_file_given_wins_over_the_one_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "one").write_text(" key-one \n", encoding="ascii")
    (tmp_path / "two").write_text("key-two", encoding="ascii")
    environ = {"MESHFLOW_KEY_FILE": str(tmp_path / "two")}
    assert read_key(tmp_path / "one", environ) == "key-one"
    assert read_key(None, environ) == "key-two"


@pytest.mark.parametrize("content", ["", "two words", "secret\r\nX-Injected: 1", "schl\u00fcssel"])
def test_a_file_without_a_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content, encoding="utf-8")
    with pytest.raises(CommandError) as refused:
        read_key(tmp_path / "key", {})
    assert refused.value.exit_code == 2
    assert not content or content not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1",
        "http://meshflow.example",
        "http://127.0.0.1.example",
        "https://a:b@localhost",
        "localhost:8080",
        "http://[::1",
        "",
    ],
)
def test_a_key_is_not_even_read_for_an_unsafe_url(url: str, tmp_path: Path) -> None:
    arguments = Namespace(url=url, key_file=tmp_path / "nowhere", ca_file=None)
    invocation = Invocation(environ={}, uid=1000, home=tmp_path)
    with pytest.raises(CommandError, match=r"--url|in clear"), api_client(invocation, arguments):
        pass
