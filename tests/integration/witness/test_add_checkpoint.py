"""add-checkpoint of C2SP tlog-witness, sentence by sentence, against a real process."""

import base64
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.support.small_log import NoteKey, SmallLog, body_of
from tests.support.witness_process import WitnessProcess

Add = Callable[[bytes], httpx2.Response]
JUNK = b"\7" * 32


def test_a_first_checkpoint_is_cosigned_and_remembered(
    witness: WitnessProcess, log: SmallLog, add: Add
) -> None:
    answer = add(log.body(0, 3))
    assert answer.status_code == 200
    assert witness.holds(answer.content, log, 3) > 0
    assert witness.latest(log) == log.note(3) + answer.content


def test_every_growth_up_to_sixteen_leaves_is_followed(
    witness: WitnessProcess, log: SmallLog, add: Add
) -> None:
    forks = [SmallLog(NoteKey(f"{log.origin}/r{k}")) for k in range(1, 17)]
    for old, one in enumerate(forks, start=1):
        assert add(one.body(0, old)).status_code == 200
        for size in range(old, 17):
            proof = one.proof(old, size) if size > old else []
            answer = add(body_of(old, proof, one.note(size)))
            assert answer.status_code == 200, (old, size)
            witness.holds(answer.content, one, size)
            old = size  # noqa: PLW2901 - the witness has moved on


def test_the_same_checkpoint_is_cosigned_again_with_a_new_time(
    witness: WitnessProcess, log: SmallLog, add: Add
) -> None:
    first = add(log.body(0, 5))
    again = add(body_of(5, [], log.note(5)))
    assert again.status_code == 200
    assert witness.holds(again.content, log, 5) >= witness.holds(first.content, log, 5)


def test_an_unknown_origin_is_404(add: Add) -> None:
    assert add(SmallLog(NoteKey("logs.test/ledger/other")).body(0, 1)).status_code == 404


@pytest.mark.parametrize("suffix", ["/r0", "/r01", "/r-1", "/r", "/rx", "/R1", "/r1/r2", "/r12345"])
def test_what_is_no_recovery_of_a_log_is_404(log: SmallLog, add: Add, suffix: str) -> None:
    assert add(SmallLog(NoteKey(log.origin + suffix)).body(0, 1)).status_code == 404


def test_a_recovery_is_known_by_the_same_key_and_begins_at_zero(
    witness: WitnessProcess, log: SmallLog, add: Add
) -> None:
    recovery = SmallLog(NoteKey(f"{log.origin}/r1"), flavour="recovered")
    assert add(log.body(0, 9)).status_code == 200
    answer = add(recovery.body(0, 2))
    assert answer.status_code == 200
    witness.holds(answer.content, recovery, 2)
    assert witness.latest(log).startswith(log.text(9))
    other = SmallLog(NoteKey(f"{log.origin}/r2", seed=b"\3" * 32))
    assert add(other.body(0, 1)).status_code == 403


def test_no_good_signature_of_a_trusted_key_is_403(log: SmallLog, add: Add) -> None:
    text = log.text(4)
    stranger = NoteKey(log.origin, seed=b"\3" * 32)
    other_text = log.key.line(log.text(5))
    renamed = NoteKey("somebody.else", seed=log.key.seed)
    colliding = log.key.line(text)[:-13] + stranger.line(text)[-13:]
    for lines in (stranger.line(text), other_text, renamed.line(text), colliding):
        assert add(body_of(0, [], text + b"\n" + lines)).status_code == 403, lines


def test_signatures_of_unknown_keys_are_ignored_and_not_kept(
    witness: WitnessProcess, log: SmallLog, add: Add
) -> None:
    text = log.text(4)
    strangers = [NoteKey(f"stranger.test/{n}", seed=bytes([n]) * 32) for n in range(9, 24)]
    lines = b"".join(key.line(text) for key in strangers)
    answer = add(body_of(0, [], text + b"\n" + lines + log.key.line(text)))
    assert answer.status_code == 200
    assert witness.latest(log) == log.note(4) + answer.content


def test_both_keys_of_a_rotated_log_are_trusted(rotated: tuple[NoteKey, NoteKey], add: Add) -> None:
    old, new = (SmallLog(key) for key in rotated)
    assert add(old.body(0, 3)).status_code == 200
    assert add(new.body(3, 7)).status_code == 200
    both = old.note(8) + new.key.line(new.text(8))
    assert add(body_of(7, old.proof(7, 8), both)).status_code == 200


def test_an_old_size_above_the_new_one_is_400(log: SmallLog, add: Add) -> None:
    assert add(log.body(0, 5)).status_code == 200
    assert add(body_of(5, [], log.note(4))).status_code == 400


@pytest.mark.parametrize("old", [0, 4, 6])
def test_another_old_size_is_409_with_the_size_that_was_cosigned(
    log: SmallLog, add: Add, old: int
) -> None:
    assert add(log.body(0, 5)).status_code == 200
    answer = add(log.body(old, 8))
    assert (answer.status_code, answer.content) == (409, b"5\n")
    assert answer.headers["content-type"] == "text/x.tlog.size"


def test_a_log_that_was_never_cosigned_is_at_size_zero(log: SmallLog, add: Add) -> None:
    answer = add(log.body(3, 8))
    assert (answer.status_code, answer.content) == (409, b"0\n")


def test_a_rollback_gets_no_cosignature(witness: WitnessProcess, log: SmallLog, add: Add) -> None:
    assert add(log.body(0, 5)).status_code == 200
    newest = add(log.body(5, 9)).content
    for body in (log.body(0, 5), body_of(5, [], log.note(5)), log.body(0, 9), log.body(5, 9)):
        answer = add(body)
        assert (answer.status_code, answer.content) == (409, b"9\n")
    assert add(body_of(9, [], log.note(5))).status_code == 400
    assert witness.latest(log) == log.note(9) + newest


def test_the_empty_tree_is_cosigned_and_grows(log: SmallLog, add: Add) -> None:
    assert add(log.body(0, 0)).status_code == 200
    assert add(body_of(0, [], log.note(0))).status_code == 200
    assert add(log.body(0, 6)).status_code == 200


def test_a_proof_that_does_not_hold_is_422(
    witness: WitnessProcess, log: SmallLog, add: Add
) -> None:
    assert add(log.body(0, 5)).status_code == 200
    good = log.proof(5, 9)
    wrong = [
        [],
        good[:-1],
        good[1:],
        [*good, JUNK],
        [JUNK, *good],
        list(reversed(good)),
        [JUNK] * len(good),
        log.proof(4, 9),
        [JUNK] * 63,
    ]
    for proof in wrong:
        assert add(body_of(5, proof, log.note(9))).status_code == 422, proof
    assert add(body_of(5, [JUNK], log.note(5))).status_code == 422
    assert witness.latest(log).startswith(log.text(5))
    assert add(log.body(5, 9)).status_code == 200


def test_a_proof_from_nothing_must_be_empty(log: SmallLog, add: Add) -> None:
    assert add(body_of(0, [JUNK], log.note(5))).status_code == 422


def test_a_fork_of_the_same_size_is_409_and_kept(
    witness: WitnessProcess, log: SmallLog, add: Add
) -> None:
    fork = SmallLog(log.key, flavour="forked", fork_at=4)
    cosigned = log.note(5) + add(log.body(0, 5)).content
    for _ in range(3):
        answer = add(body_of(5, [], fork.note(5)))
        assert answer.status_code == 409
        assert answer.headers["content-type"] != "text/x.tlog.size"
        assert "—" not in answer.text
    assert witness.latest(log) == cosigned
    told = witness.files.run("witness", "evidence", "--state", str(witness.files.state))
    assert told.code == 0
    assert told.out.count(fork.note(5).decode()) == 1
    assert cosigned.decode() in told.out
    assert f"FORK: {log.origin} signed a second root of size 5" in witness.files.log.read_text()


def test_a_fork_that_has_grown_is_422_and_kept_until_it_is_proven(
    witness: WitnessProcess, log: SmallLog, add: Add
) -> None:
    fork = SmallLog(log.key, flavour="forked", fork_at=4)
    assert add(log.body(0, 5)).status_code == 200
    assert add(fork.body(5, 8)).status_code == 422
    assert add(body_of(5, [JUNK], log.note(9))).status_code == 422
    words = ("witness", "evidence", "--state", str(witness.files.state))
    told = witness.files.run(*words).out
    assert fork.note(8).decode() in told
    assert log.note(9).decode() in told
    assert add(log.body(5, 9)).status_code == 200
    told = witness.files.run(*words).out
    assert fork.note(8).decode() in told
    assert log.note(9).decode() not in told


def test_sixty_three_proof_lines_are_read_and_no_more(log: SmallLog, add: Add) -> None:
    assert add(log.body(0, 5)).status_code == 200
    assert add(body_of(5, [JUNK] * 63, log.note(9))).status_code == 422
    assert add(body_of(5, [JUNK] * 64, log.note(9))).status_code == 400


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"old\n",
        b"old \n",
        b"old 00\n",
        b"old 01\n",
        b"old -1\n",
        b"old +0\n",
        b"old 0 \n",
        b"old  0\n",
        b"old\t0\n",
        b" old 0\n",
        b"OLD 0\n",
        b"old 0\r\n",
        b"old 0x0\n",
        "old \N{ARABIC-INDIC DIGIT ZERO}\n".encode(),
        b"old 9223372036854775808\n",
        b"old 99999999999999999999\n",
        b"old 0\n\n",
        b"old 0\nold 0\n",
        b"old 0\n" + base64.b64encode(JUNK[:31]) + b"\n",
        b"old 0\n" + base64.b64encode(JUNK + b"\7") + b"\n",
        b"old 0\n" + base64.b64encode(JUNK) + b" \n",
        b"old 0\n" + base64.b64encode(JUNK)[:-2] + b"x=\n",  # bits that mean nothing
        b"old 0\n" + base64.b64encode(JUNK).rstrip(b"=") + b"\n",
        b"old 0\n" + base64.b64encode(b"\xff" * 32).replace(b"/", b"_") + b"\n",
        b"\nold 0\n",
    ],
)
def test_a_malformed_head_is_400(log: SmallLog, add: Add, head: bytes) -> None:
    assert add(head + b"\n" + log.note(1)).status_code == 400


def test_a_malformed_checkpoint_is_400(log: SmallLog, add: Add) -> None:
    good = log.note(2)
    text, line = log.text(2), log.key.line(log.text(2))
    first, size, root = text.decode().splitlines()
    texts = [
        f"{first}\n02\n{root}\n",
        f"{first}\n-2\n{root}\n",
        f"{first}\n9223372036854775808\n{root}\n",
        f"{first}\n{size}\n{root[:-4]}\n",
        f"{first}\n{size}\n{root} \n",
        f"{first}\n{size}\n",
        f"\n{size}\n{root}\n",
        f"{first}\r\n{size}\r\n{root}\r\n",
        f"{first}\n{size}\n{root}\nextension\n",
        f"{first}\n0\n{root}\n",
    ]
    signed = [one.encode() + b"\n" + log.key.line(one.encode()) for one in texts]
    torn = [good[:-1], good[:-5], text, text + b"\n", b"", line, good + b"\n", good + line[:9]]
    for note in (
        *signed,
        *torn,
        good.replace(b"\n", b"\0\n", 1),
        good.replace(b"logs", b"\xff", 1),
    ):
        assert add(b"old 0\n\n" + note).status_code == 400, note
    assert add(b"old 0\n\n" + good).status_code == 200


def test_a_body_that_is_too_long_is_413(log: SmallLog, http: httpx2.Client, add: Add) -> None:
    answer = add(b"old 0\n\n" + b"x" * 100_000)
    assert answer.status_code == 413

    def endless() -> object:
        while True:
            yield b"x" * 4096

    # Without a length, and longer than anything: the answer comes all the same, or the end does.
    try:
        status = http.post("/add-checkpoint", content=endless()).status_code  # type: ignore[arg-type]  # a generator of bytes
    except httpx2.TransportError:
        status = 413
    assert status == 413
    assert add(log.body(0, 1)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/add-checkpoint", 405),
        ("PUT", "/add-checkpoint", 405),
        ("POST", "/checkpoint", 405),
        ("POST", "/add-checkpoint/", 404),
        ("POST", "/", 404),
        ("GET", "/checkpoint", 400),
        ("GET", "/checkpoint?origin=", 400),
        ("GET", "/checkpoint?origin=a&origin=b", 400),
        ("GET", "/checkpoint?name=a", 400),
        ("GET", "/checkpoint?origin=%ff", 400),
        ("GET", "/checkpoint?origin=nobody.test", 404),
    ],
)
def test_other_requests_are_refused(
    http: httpx2.Client, method: str, path: str, status: int
) -> None:
    assert http.request(method, path).status_code == status


def test_a_watched_log_that_was_never_cosigned_has_no_content(
    http: httpx2.Client, log: SmallLog
) -> None:
    answer = http.get("/checkpoint", params={"origin": log.origin})
    assert (answer.status_code, answer.content) == (204, b"")


def test_one_connection_carries_many_requests(witness: WitnessProcess, log: SmallLog) -> None:
    host = urlsplit(witness.url)
    with socket.create_connection((str(host.hostname), int(host.port or 0)), timeout=60) as wire:
        reader = wire.makefile("rb")
        for size in (1, 2, 3):
            body = log.body(size - 1, size)
            head = f"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: {len(body)}"
            wire.sendall(head.encode() + b"\r\n\r\n" + body)
            assert reader.readline().split()[1] == b"200"
            length = 0
            while (line := reader.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name == b"content-length" else length
            witness.holds(reader.read(length), log, size)
