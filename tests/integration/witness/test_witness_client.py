"""The sequencer's side of add-checkpoint: against the real witness, and against one that lies."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest

from app.domain.errors import (
    ConfigurationError,
    WitnessAheadError,
    WitnessRefusedError,
    WitnessUnavailableError,
)
from app.sequencing.witness_client import MOST_ANSWER_BYTES, WitnessClient
from tests.support.small_log import NoteKey, SmallLog
from tests.support.witness_process import WitnessProcess

pytestmark = pytest.mark.anyio

KEY = NoteKey("witness.test/liar", seed=b"\5" * 32, kind=4)
LOG = SmallLog(NoteKey("logs.test/client"))


class Proofs:
    """Gives proofs to one size, and remembers what it was asked for."""

    def __init__(self, log: SmallLog, size: int) -> None:
        self.log, self.size = log, size
        self.asked: list[int] = []

    async def __call__(self, old: int) -> Sequence[bytes]:
        self.asked.append(old)
        return self.log.proof(old, self.size)


@pytest.fixture
async def web() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        yield client


@pytest.fixture
def client(witness: WitnessProcess, web: httpx2.AsyncClient) -> WitnessClient:
    return WitnessClient(witness.url + "/", witness.vkey, web)


async def added(client: WitnessClient, log: SmallLog, size: int) -> tuple[str, list[int]]:
    proofs = Proofs(log, size)
    return await client.add_checkpoint(log.note(size), size, proofs), proofs.asked


async def test_a_log_grows_under_its_witness(
    client: WitnessClient, witness: WitnessProcess, log: SmallLog
) -> None:
    assert await client.latest(log.origin) is None
    for size, asked in ((3, []), (9, [3]), (9, [9]), (17, [9])):
        line, proofs = await added(client, log, size)
        witness.holds(line.encode(), log, size)
        assert proofs == asked
        found = await client.latest(log.origin)
        assert found is not None
        assert (found.origin, found.size) == (log.origin, size)


async def test_a_client_that_starts_anew_is_told_where_the_witness_is(
    client: WitnessClient, witness: WitnessProcess, web: httpx2.AsyncClient, log: SmallLog
) -> None:
    await added(client, log, 5)
    line, asked = await added(WitnessClient(witness.url, witness.vkey, web), log, 8)
    witness.holds(line.encode(), log, 8)
    assert asked == [5]
    line, asked = await added(client, log, 11)  # another process has gone on since
    witness.holds(line.encode(), log, 11)
    assert asked == [5, 8]


async def test_a_restored_log_hears_that_the_witness_is_ahead(
    client: WitnessClient, witness: WitnessProcess, web: httpx2.AsyncClient, log: SmallLog
) -> None:
    await added(client, log, 9)
    for one in (client, WitnessClient(witness.url, witness.vkey, web)):
        with pytest.raises(WitnessAheadError) as caught:
            await added(one, log, 4)
        assert caught.value.size == 9


async def test_a_fork_is_refused_at_the_same_size_and_above(
    client: WitnessClient, witness: WitnessProcess, web: httpx2.AsyncClient, log: SmallLog
) -> None:
    await added(client, log, 9)
    fork = SmallLog(log.key, "forked", 4)
    for one in (client, WitnessClient(witness.url, witness.vkey, web)):
        for size in (9, 12):
            with pytest.raises(WitnessRefusedError) as caught:
                await added(one, fork, size)
            assert caught.value.is_fork
    found = await client.latest(log.origin)
    assert found is not None
    assert found.size == 9


async def test_an_unknown_log_and_a_wrong_key_are_refused(
    client: WitnessClient, log: SmallLog
) -> None:
    stranger = SmallLog(NoteKey("logs.test/stranger"))
    wrong = SmallLog(NoteKey(log.origin, seed=b"\3" * 32))
    for one, status in ((stranger, 404), (wrong, 403)):
        with pytest.raises(WitnessRefusedError) as caught:
            await added(client, one, 2)
        assert (caught.value.status, caught.value.is_fork) == (status, False)
    with pytest.raises(WitnessRefusedError):
        await client.latest(stranger.origin)


async def test_a_witness_that_is_away_is_unavailable(web: httpx2.AsyncClient) -> None:
    async with lying(b"") as url:
        pass
    client = WitnessClient(url, KEY.vkey, web)
    with pytest.raises(WitnessUnavailableError):
        await added(client, LOG, 2)
    with pytest.raises(WitnessUnavailableError):
        await client.latest(LOG.origin)


async def test_a_note_of_another_size_is_a_mistake_of_the_caller(client: WitnessClient) -> None:
    with pytest.raises(ValueError, match="another size"):
        await client.add_checkpoint(LOG.note(3), 4, Proofs(LOG, 4))


@asynccontextmanager
async def lying(
    *answers: bytes, trickle: bytes = b"", pause_seconds: float = 0.0
) -> AsyncIterator[str]:
    """Answers each request with the next of these bytes; `trickle` goes on for ever after them."""
    left = list(answers)
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        sizes = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
        await reader.readexactly(int(sizes[0].split(b":")[1]) if sizes else 0)
        writer.write(left.pop(0) if left else b"")
        while trickle and not writer.is_closing():
            writer.write(trickle)
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*tasks)


def response(status: int, body: bytes, kind: str = "text/plain", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def size_of(told: bytes) -> bytes:
    return response(409, told, "text/x.tlog.size")


GOOD = KEY.line(LOG.text(5), at=7)
STRANGER = NoteKey("stranger.test", seed=b"\6" * 32, kind=4)


async def test_only_the_line_of_the_configured_key_counts(web: httpx2.AsyncClient) -> None:
    body = STRANGER.line(LOG.text(5), at=7) + GOOD + LOG.key.line(LOG.text(5))
    async with lying(response(200, body)) as url:
        line, _ = await added(WitnessClient(url, KEY.vkey, web), LOG, 5)
    assert line.encode() == GOOD


FALSE_LINES = {
    "nothing": b"",
    "no line": b"thank you\n",
    "not UTF-8": b"\xff\n",
    "another key": STRANGER.line(LOG.text(5), at=7),
    "another key of the same name": NoteKey(KEY.name, b"\6" * 32, 4).line(LOG.text(5), at=7),
    "the same key id over another key": GOOD[:-20] + b"A" * 16 + GOOD[-4:],
    "another size": KEY.line(LOG.text(6), at=7),
    "another origin": KEY.line(SmallLog(NoteKey("logs.test/x")).text(5), at=7),
    "another root": KEY.line(SmallLog(LOG.key, "forked").text(5), at=7),
    "no time": NoteKey(KEY.name, KEY.seed, 4).line(LOG.text(5)),
    "a time beyond all": KEY.line(LOG.text(5), at=2**63),
    "the key as that of a log": NoteKey(KEY.name, KEY.seed, 1).line(LOG.text(5)),
    "one good and one false": GOOD + KEY.line(LOG.text(6), at=7),
    "an unfinished line": GOOD[:-1],
    "the log's own signature": LOG.key.line(LOG.text(5)),
}


@pytest.mark.parametrize("name", FALSE_LINES)
async def test_a_false_cosignature_is_no_cosignature(web: httpx2.AsyncClient, name: str) -> None:
    async with lying(response(200, FALSE_LINES[name])) as url:
        with pytest.raises(WitnessUnavailableError, match="no cosignature"):
            await added(WitnessClient(url, KEY.vkey, web), LOG, 5)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x16\x03\x01",
        b"HTTP/1.1 200 X\r\nContent-Length: 900\r\n\r\n" + GOOD,
        response(201, GOOD),
        response(204, b""),
        response(302, b"", "text/plain", "Location: http://127.0.0.1:1/"),
        response(500, GOOD),
        response(503, b""),
        response(429, b""),
        response(200, b"\x1f\x8b" + b"\0" * 30, "text/plain", "Content-Encoding: gzip"),
    ],
)
async def test_an_answer_that_is_none_is_unavailable(
    web: httpx2.AsyncClient, answer: bytes
) -> None:
    async with lying(answer) as url:
        with pytest.raises(WitnessUnavailableError):
            await added(WitnessClient(url, KEY.vkey, web), LOG, 5)


async def test_a_huge_answer_is_cut_off(web: httpx2.AsyncClient) -> None:
    head = b"HTTP/1.1 200 X\r\nContent-Type: text/plain\r\n\r\n"
    for first in (head + b"x" * (MOST_ANSWER_BYTES + 1), head):
        async with lying(first, trickle=b"x" * 4096) as url:
            with pytest.raises(WitnessUnavailableError, match="too long"):
                await added(WitnessClient(url, KEY.vkey, web), LOG, 5)


async def test_a_slow_answer_is_cut_off(web: httpx2.AsyncClient) -> None:
    """Byte by byte, each of them in time: it is the whole exchange that is bounded."""
    head = b"HTTP/1.1 200 X\r\nContent-Length: 60000\r\n\r\n"
    async with lying(head, trickle=b"x", pause_seconds=0.02) as url:
        with pytest.raises(WitnessUnavailableError, match="TimeoutError"):
            await added(WitnessClient(url, KEY.vkey, web, seconds=0.3), LOG, 5)


@pytest.mark.parametrize(
    ("answers", "raised"),
    [
        ((size_of(b"9\n"),), WitnessAheadError),
        ((size_of(b"3\n"), size_of(b"9\n")), WitnessAheadError),
        ((size_of(b"3\n"), size_of(b"4\n")), WitnessUnavailableError),
        ((size_of(b"3\n"), size_of(b"3\n")), WitnessUnavailableError),
        ((size_of(b"5\n"), size_of(b"5\n")), WitnessRefusedError),
        ((size_of(b"5\n"), response(409, b"no")), WitnessRefusedError),
        ((size_of(b"0\n"),), WitnessUnavailableError),
        ((response(409, b"9\n"),), WitnessUnavailableError),
        *(
            ((size_of(told),), WitnessUnavailableError)
            for told in (b"", b"x\n", b"-1\n", b"09\n", b" 9\n", b"9" * 20, b"9" * 5000, b"\xff\n")
        ),
    ],
)
async def test_a_conflict_is_followed_once_and_no_further(
    web: httpx2.AsyncClient, answers: tuple[bytes, ...], raised: type[Exception]
) -> None:
    async with lying(*answers) as url:
        with pytest.raises(raised):
            await added(WitnessClient(url, KEY.vkey, web), LOG, 5)


async def test_after_one_conflict_the_proof_from_that_size_is_sent(web: httpx2.AsyncClient) -> None:
    async with lying(size_of(b"3\n"), response(200, GOOD)) as url:
        line, asked = await added(WitnessClient(url, KEY.vkey, web), LOG, 5)
    assert (line.encode(), asked) == (GOOD, [3])


async def test_a_newest_note_counts_only_with_the_witnesss_cosignature(
    web: httpx2.AsyncClient,
) -> None:
    other = SmallLog(NoteKey("logs.test/other"))
    notes = [
        LOG.note(5),
        LOG.note(5) + STRANGER.line(LOG.text(5), at=7),
        LOG.note(5) + KEY.line(LOG.text(4), at=7),
        other.note(5) + KEY.line(other.text(5), at=7),
        b"",
        b"\xff",
        b"x" * 70_000,
    ]
    for note in notes:
        async with lying(response(200, note)) as url:
            with pytest.raises(WitnessUnavailableError):
                await WitnessClient(url, KEY.vkey, web).latest(LOG.origin)
    async with lying(response(200, LOG.note(5) + GOOD)) as url:
        found = await WitnessClient(url, KEY.vkey, web).latest(LOG.origin)
    assert found is not None
    assert found.size == 5


@pytest.mark.parametrize(
    "url",
    [
        "http://witness.example",
        "http://10.0.0.1:8090",
        "ftp://127.0.0.1",
        "https://user:secret@witness.example",
        "https://witness.example?x=1",
        "https://witness.example#x",
        "https://",
        "https://[::1",
        "witness.example",
        "",
    ],
)
def test_an_unsafe_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WitnessClient(url, KEY.vkey, httpx2.AsyncClient(trust_env=False))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("vkey", ["", "x", LOG.key.vkey, KEY.vkey[:-1]])
def test_a_key_that_is_no_witnesss_is_refused(vkey: str) -> None:
    with pytest.raises(ConfigurationError):
        WitnessClient("https://witness.example", vkey, httpx2.AsyncClient(trust_env=False))
