import socket
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from app.cli.http_client import ApiClient, api_client, bounded_lines, parse_events, plain, read_key
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


def test_lines_are_put_together_from_whatever_parts_they_come_in() -> None:
    parts = iter([b"id: 0\r", b"\ndata: \xc3", b"\xa4\n\n", b"rest"])
    assert list(bounded_lines(parts)) == ["id: 0", "data: \u00e4", ""]


class Endless:
    """A server on a real socket that never ends what it began to say."""

    def __init__(self, beginning: bytes, more: bytes) -> None:
        self._said = (beginning, more)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._talk, daemon=True).start()

    def _talk(self) -> None:
        beginning, more = self._said
        with suppress(OSError), self._listener, self._listener.accept()[0] as peer:
            peer.recv(65536)
            peer.sendall(beginning)
            for _ in range(2_000):  # 128 MiB: the end of the test, when nobody hangs up
                peer.sendall(more)


ANSWER = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nConnection: close\r\n\r\n"
ENDLESS = [
    ("get", ANSWER % (b"200 OK", b"application/json") + b'{"a":"'),
    ("get", ANSWER % (b"503 No", b"application/problem+json") + b'{"code":"'),
    ("post", ANSWER % (b"200 OK", b"application/json") + b'{"a":"'),
    ("events", ANSWER % (b"200 OK", b"text/event-stream") + b"data: "),
    ("events", ANSWER % (b"503 No", b"application/problem+json")),
]


@pytest.mark.parametrize(
    ("how", "beginning"), ENDLESS, ids=["get", "problem", "post", "events", "no-events"]
)
@pytest.mark.parametrize(
    "more", [b"x" * 65536, b"data: 1234\n" * 6000], ids=["one-line", "many-lines"]
)
def test_an_answer_without_end_is_not_waited_out(
    how: str, beginning: bytes, more: bytes, tmp_path: Path
) -> None:
    server = Endless(beginning, more)
    key = tmp_path / "key"
    key.write_text("k" * 24)
    arguments = Namespace(url=server.url, key_file=key, ca_file=None)
    asked: Mapping[str, Callable[[ApiClient], object]] = {
        "get": lambda api: api.get("/"),
        "post": lambda api: api.post("/", {}),
        "events": lambda api: list(api.events("/", -1)),
    }
    with (
        api_client(Invocation(environ={}, uid=1000, home=tmp_path), arguments) as api,
        pytest.raises(CommandError, match="longer than any"),
    ):
        asked[how](api)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff", b"", b"[]", b"\x1f\x8b\x08"])
def test_an_answer_that_is_no_object_is_one_sentence(body: bytes, tmp_path: Path) -> None:
    server = Endless(ANSWER % (b"200 OK", b"application/json") + body, b"")
    key = tmp_path / "key"
    key.write_text("k" * 24)
    arguments = Namespace(url=server.url, key_file=key, ca_file=None)
    with (
        api_client(Invocation(environ={}, uid=1000, home=tmp_path), arguments) as api,
        pytest.raises(CommandError, match="not that of MeshFlow"),
    ):
        api.get("/")


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
