"""The memory of a witness on a real file, and the bounds of its HTTP side."""

import asyncio
import functools
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
import uvicorn

from app.cli import web_server
from app.domain.errors import ConfigurationError
from app.transparency.checkpoint import Checkpoint, parse_checkpoint
from app.transparency.note import COSIGNATURE, SignerKey, parse_note
from app.witness import witness_state
from app.witness.known_logs import KnownLogs
from app.witness.witness_app import Message, WitnessApp
from app.witness.witness_key import cosigned_checkpoint
from app.witness.witness_state import (
    MOST_EVIDENCE,
    Candidate,
    Cosigned,
    Forked,
    Outcome,
    Unproven,
    WitnessState,
    open_state,
)
from tests.support.small_log import NoteKey, SmallLog, cosigned_at

KEY = NoteKey("witness.test/w1", seed=b"\5" * 32, kind=4)
SIGNER = SignerKey(name=KEY.name, algorithm=COSIGNATURE, seed=KEY.seed)
LOG = SmallLog(NoteKey("logs.test/state"))
JUNK = b"\7" * 32


def opened(path: Path, key: NoteKey = KEY, *, must_exist: bool = False) -> WitnessState:
    signer = SignerKey(name=key.name, algorithm=COSIGNATURE, seed=key.seed)
    is_ours = functools.partial(cosigned_checkpoint, key=signer)
    return open_state(path, key.vkey, is_ours, must_exist=must_exist)


def checkpoint(log: SmallLog, size: int) -> Checkpoint:
    return parse_checkpoint(log.text(size).decode())


def ask(
    state: WitnessState, log: SmallLog, old: int, size: int, proof: tuple[bytes, ...] | None = None
) -> Outcome:
    given = tuple(log.proof(old, size)) if proof is None else proof
    candidate = Candidate(
        checkpoint=checkpoint(log, size), note=log.note(size), old_size=old, proof=given
    )
    return state.decide(candidate, lambda: KEY.line(log.text(size), at=7), 7)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[WitnessState]:
    found = opened(tmp_path / "state")
    yield found
    found.close()


def test_a_cosignature_is_in_the_file_before_it_is_given_out(
    state: WitnessState, tmp_path: Path
) -> None:
    outcome = ask(state, LOG, 0, 5)
    assert isinstance(outcome, Cosigned)
    shutil.copy(tmp_path / "state", tmp_path / "copy")  # what a kill would leave, journal and all
    with suppress(FileNotFoundError):
        shutil.copy(tmp_path / "state-journal", tmp_path / "copy-journal")
    copy = opened(tmp_path / "copy")
    assert copy.latest(LOG.origin) == LOG.note(5) + outcome.line
    copy.close()


@pytest.mark.parametrize("moment", range(1, 12))
def test_no_moment_of_a_decision_lets_another_process_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """The rival comes before or is kept out; it never comes between comparing and persisting."""
    monkeypatch.setattr(witness_state, "BUSY_SECONDS", 0.0)
    one, rival = opened(tmp_path / "state"), opened(tmp_path / "state")
    assert isinstance(ask(one, LOG, 0, 5), Cosigned)
    statements: list[str] = []
    rivals: list[Outcome] = []

    def interrupt(statement: str) -> None:
        statements.append(statement)
        if len(statements) == moment:
            with suppress(sqlite3.OperationalError):  # kept out
                rivals.append(ask(rival, LOG, 5, 9))

    one._db.set_trace_callback(interrupt)
    own = ask(one, LOG, 5, 7)
    one._db.set_trace_callback(None)
    assert statements[-1] == "COMMIT"
    winners = [7] * isinstance(own, Cosigned) + [9] * len(rivals)
    assert winners == [9 if moment == 1 else 7]
    assert (one.latest(LOG.origin) or b"").startswith(LOG.text(winners[0]))
    one.close()
    rival.close()


def test_a_signature_that_cannot_be_made_leaves_the_memory_as_it_was(state: WitnessState) -> None:
    before = ask(state, LOG, 0, 5)
    assert isinstance(before, Cosigned)

    def fails() -> bytes:
        raise RuntimeError("no signature")

    candidate = Candidate(
        checkpoint=checkpoint(LOG, 9),
        note=LOG.note(9),
        old_size=5,
        proof=tuple(LOG.proof(5, 9)),
    )
    with pytest.raises(RuntimeError):
        state.decide(candidate, fails, 7)
    assert state.latest(LOG.origin) == LOG.note(5) + before.line
    assert isinstance(ask(state, LOG, 5, 9), Cosigned)


def test_a_commit_that_fails_gives_no_cosignature(state: WitnessState) -> None:
    assert isinstance(ask(state, LOG, 0, 5), Cosigned)
    pages = state._db.execute("PRAGMA page_count").fetchone()[0]
    state._db.execute(f"PRAGMA max_page_count = {pages}")
    wide = SmallLog(NoteKey("logs.test/" + "w" * 20_000))  # a row that needs a page of its own
    with pytest.raises(sqlite3.OperationalError, match="full"):
        ask(state, wide, 0, 1)
    assert state.latest(wide.origin) is None
    assert state.latest(LOG.origin) is not None


def test_every_byte_that_is_turned_is_refused_or_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = opened(path)
    outcome = ask(state, LOG, 0, 5)
    assert isinstance(outcome, Cosigned)
    state.close()
    good = path.read_bytes()
    used = [n for n, byte in enumerate(good) if byte]
    refusals = 0
    for at in used:
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        try:
            found = opened(path)
        except ConfigurationError:
            refusals += 1
            continue
        # The log's own line may be damaged: the memory is what the witness itself signed.
        note = found.latest(LOG.origin) or b""
        assert note.startswith(LOG.text(5)), at
        assert note.endswith(outcome.line), at
        found.close()
    assert refusals > len(LOG.text(5) + outcome.line)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE latest SET size = 3",
        "UPDATE latest SET root = zeroblob(32)",
        "UPDATE latest SET origin = 'logs.test/other'",
        "UPDATE latest SET note = zeroblob(200)",
        "UPDATE latest SET note = 'text'",
        "UPDATE witness SET vkey = 'x'",
        "DELETE FROM witness",
        "DROP TABLE latest",
        "PRAGMA user_version = 2",
        "PRAGMA application_id = 1",
    ],
)
def test_a_memory_that_was_rewritten_is_refused(tmp_path: Path, change: str) -> None:
    state = opened(tmp_path / "state")
    ask(state, LOG, 0, 5)
    state.close()
    db = sqlite3.connect(tmp_path / "state", isolation_level=None)
    db.execute(change)
    db.close()
    with pytest.raises(ConfigurationError):
        opened(tmp_path / "state")


def test_the_memory_of_another_witness_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "state").close()
    other = NoteKey(KEY.name, seed=b"\6" * 32, kind=4)
    with pytest.raises(ConfigurationError, match="another key"):
        opened(tmp_path / "state", other)


def test_evidence_is_bounded_and_the_first_forks_stay(state: WitnessState) -> None:
    assert isinstance(ask(state, LOG, 0, 5), Cosigned)
    many = MOST_EVIDENCE + 6
    forks = [SmallLog(LOG.key, f"fork {n}", 2) for n in range(many)]
    for fork in forks:
        assert isinstance(ask(state, fork, 5, 5), Forked)
        assert isinstance(ask(state, fork, 5, 6, (JUNK,)), Unproven)
    kept = [item.note for item in state.evidence() if item.kind == "fork"]
    assert kept == [fork.note(5) for fork in forks[:MOST_EVIDENCE]]
    kept = [item.note for item in state.evidence() if item.kind == "unproven"]
    assert kept == [fork.note(6) for fork in forks[-MOST_EVIDENCE:]]


@contextmanager
def served(app: WitnessApp) -> Iterator[int]:
    """On a free port, by the protocol that `meshflow witness serve` has."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=web_server._ImpatientProtocol,
        ws="none",
        log_config=None,
        limit_concurrency=8,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(120)
        listener.close()


def app_of(state: WitnessState, body_seconds: float = 10.0) -> WitnessApp:
    return WitnessApp(SIGNER, KnownLogs([LOG.key.vkey]), state, lambda: 7, body_seconds)


def test_a_state_that_is_held_is_503_and_gives_nothing_out(
    state: WitnessState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_state, "BUSY_SECONDS", 0.0)
    state.close()
    state = opened(tmp_path / "state")
    holder = sqlite3.connect(tmp_path / "state", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with served(app_of(state)) as port:
        url = f"http://127.0.0.1:{port}"
        with httpx2.Client(base_url=url, timeout=60, trust_env=False) as client:
            answer = client.post("/add-checkpoint", content=LOG.body(0, 5))
            assert answer.status_code == 503
            assert "—" not in answer.text
            holder.execute("ROLLBACK")
            answer = client.post("/add-checkpoint", content=LOG.body(0, 5))
            assert answer.status_code == 200
            assert cosigned_at(answer.content, LOG.text(5), KEY.vkey) == 7
    holder.close()
    state.close()


def until_cut(port: int, first: bytes, again: bytes) -> bytes:
    """Send a little, and a little more whenever nothing comes back; what came before the end."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.settimeout(0.05)
        with suppress(OSError):
            wire.sendall(first)
        for _ in range(400):
            try:
                chunk = wire.recv(4096)
            except TimeoutError:
                with suppress(OSError):
                    wire.sendall(again)
                continue
            except ConnectionError:
                return heard
            if not chunk:
                return heard
            heard += chunk
    raise AssertionError("it is never cut")


def test_a_slow_head_is_cut(state: WitnessState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "HEAD_SECONDS", 0.3)
    with served(app_of(state)) as port:
        assert until_cut(port, b"", b"") == b""
        assert until_cut(port, b"POST /add-checkpoint HTTP/1.1\r\n", b"X-A: b\r\n") == b""
        answered = b"GET /checkpoint HTTP/1.1\r\nHost: w\r\n\r\n"
        assert until_cut(port, answered, b"").startswith(b"HTTP/1.1 400")


def test_a_slow_body_is_408_and_cut(state: WitnessState) -> None:
    head = b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 60000\r\n\r\nold"
    with served(app_of(state, body_seconds=0.3)) as port:
        assert until_cut(port, head, b" ").startswith(b"HTTP/1.1 408")


def test_a_long_head_is_refused(state: WitnessState) -> None:
    with served(app_of(state)) as port:
        heard = until_cut(port, b"GET /checkpoint HTTP/1.1\r\nX: " + b"a" * 70_000, b"")
        assert heard == b"" or heard.startswith(b"HTTP/1.1 400")


def test_more_connections_than_the_most_are_503(state: WitnessState) -> None:
    with served(app_of(state)) as port:
        wires = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        try:
            with httpx2.Client(trust_env=False, timeout=60) as client:
                answer = client.get(f"http://127.0.0.1:{port}/checkpoint?origin=a")
            assert answer.status_code == 503
        finally:
            for wire in wires:
                wire.close()


def test_a_client_that_leaves_within_its_body_is_not_waited_for(state: WitnessState) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": LOG.body(0, 5)[:-9], "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Message = {"type": "http", "method": "POST", "path": "/add-checkpoint"}
    asyncio.run(app_of(state)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert state.latest(LOG.origin) is None


def test_what_is_stored_is_a_note_with_the_log_and_the_witness_on_it(state: WitnessState) -> None:
    assert isinstance(ask(state, LOG, 0, 5), Cosigned)
    note = parse_note(state.latest(LOG.origin) or b"")
    assert [line.name for line in note.signatures] == [LOG.origin, KEY.name]
