"""A live run's export before the second verifier: as it was exported, and with one bit turned.

`python -m tests.contract.second_verifier.live_export`: a server, a witness and node, each a process
of its own. 0 when the export is answered by 0 and every altered copy by 3, and when exports from
after a rotation of the erasure key and of the enrolment key are answered by 0 to a reader who pins
the keys of before.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.e2e.server_process import (
    ENTRY,
    PATIENCE_SECONDS,
    ServerProcess,
    run_command,
    serving,
    surroundings,
)
from tests.support.forged_remains import FORGERIES, Remains, packed

HERE = Path(__file__).resolve().parent
KEY = "acme-key-000000000000000000000001"
WITNESS = "witness.live/w1"
# Where a bit is turned: in a record, in a note and in the manifest's digest of one.
ALTERED = (b'"header":"', b'"value":"', b'"tip":"', b"/ledger/")
ALTERED_REMAINS = (b'"rc":"', b'"value":"', b'"tip":"', b"/ledger/")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def _witness(directory: Path, port: int, vkey: str) -> Iterator[None]:
    """A witness of that log on that port, until the block ends."""
    files = ["--key-file", str(directory / "witness.key"), "--state", str(directory / "state")]
    process = subprocess.Popen(
        [*ENTRY, "witness", "serve", "--port", str(port), "--log", vkey, *files],
        env=surroundings(directory / "witness-data"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _node(bundle: bytes, policy: str, directory: Path) -> tuple[int, str]:
    (directory / "run.tar").write_bytes(bundle)
    (directory / "policy").write_text(policy, encoding="utf-8")
    words = ["node", str(HERE / "verify.mjs"), str(directory / "run.tar")]
    done = subprocess.run(
        [*words, "--policy", str(directory / "policy")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _run_id(client: httpx2.Client) -> str:
    made = client.post("/v1/runs", json={"task": "What is 6*7?"}, headers={"Prefer": "wait=20"})
    made.raise_for_status()
    name: str = made.json()["id"]
    return name


def _exported(client: httpx2.Client, run: str, policy: str, directory: Path) -> bytes:
    """The run's bundle once node answers it with 0: it is witnessed a little after it ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = client.get(f"/v1/runs/{run}/bundle")
        if answer.status_code == 409 and time.monotonic() < deadline:
            assert answer.json()["type"].endswith("not-sequenced"), answer.text
            time.sleep(0.1)
            continue
        answer.raise_for_status()
        code, told = _node(answer.content, policy, directory)
        if code == 0:
            return answer.content
        if code != 2 or time.monotonic() > deadline:
            raise AssertionError(f"node answered {code}: {told}")


def _left(client: httpx2.Client, run: str, policy: str, directory: Path) -> bytes:
    """Delete the run; the bundle of what is left of it, which node answers with 0."""
    body = {"run_id": run, "action": "delete_run", "legal_basis": "art17", "request_ref": "x"}
    client.post("/v1/erasures", json=body).raise_for_status()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while client.get(f"/v1/runs/{run}").status_code != 404:
        assert time.monotonic() < deadline, "the run is still there"
    bundle = _exported(client, run, policy, directory)
    assert "the run erased" in _node(bundle, policy, directory)[1]
    return bundle


def _check_forged(remains: Remains, policy: str, directory: Path) -> None:
    for forged in FORGERIES:
        code, told = _node(packed(forged(remains)), policy, directory)
        assert code == 3, f"{forged.__name__}: node answered {code}: {told}"


def _check_altered(bundle: bytes, policy: str, directory: Path, marks: Sequence[bytes]) -> None:
    for mark in marks:
        at = bundle.index(mark) + len(mark)
        altered = bundle[:at] + bytes([bundle[at] ^ 1]) + bundle[at + 1 :]
        code, told = _node(altered, policy, directory)
        assert code == 3, f"{mark!r} altered: node answered {code}: {told}"


def _check(server: ServerProcess, directory: Path, environ: dict[str, str]) -> str:
    """The policy that pins the present keys."""
    with server.client(KEY) as client:
        told = client.get("/v1/ledger/policy")
        told.raise_for_status()
        policy = told.text
        vkey = next(line.split()[1] for line in policy.splitlines() if line.startswith("log "))
        with _witness(directory, _port_of(directory), vkey):
            run, gone, other = _run_id(client), _run_id(client), _run_id(client)
            bundle = _exported(client, run, policy, directory)
            _check_altered(bundle, policy, directory, ALTERED)
            print(f"a live export of {len(bundle)} bytes: 0, and {len(ALTERED)} altered copies: 3")
            before = _exported(client, gone, policy, directory)
            left = [_left(client, name, policy, directory) for name in (gone, other)]
            _check_altered(left[0], policy, directory, ALTERED_REMAINS)
            _check_forged(Remains(before=before, after=left[0], other=left[1]), policy, directory)
            altered = len(ALTERED_REMAINS) + len(FORGERIES)
            print(f"what is left of a run once it is deleted: 0, and {altered} forgeries of it: 3")
            _erase(client, run, "task")
            _rotate("erasure", environ)
            _erase(client, run, "output")
            thinned = _exported(client, run, policy, directory)
            print(f"after a rotation of the erasure key, {len(thinned)} bytes: 0 by the old pins")
    return policy


def _check_after(server: ServerProcess, directory: Path, policy: str) -> None:
    """The same pins, after the enrolment key gave way while the server was stopped."""
    vkey = next(line.split()[1] for line in policy.splitlines() if line.startswith("log "))
    with server.client(KEY) as client, _witness(directory, _port_of(directory), vkey):
        bundle = _exported(client, _run_id(client), policy, directory)
    print(f"after a rotation of the enrolment key, {len(bundle)} bytes: 0 by the old pins")


def _rotate(role: str, environ: dict[str, str]) -> None:
    done = run_command("ledger", "rotate-key", role, environ=environ)
    assert done.code == 0, done.err


def _erase(client: httpx2.Client, run: str, field: str) -> None:
    """One field is gone when this returns."""
    body = {
        "action": "anonymize_run",
        "run_id": run,
        "fields": [field],
        "legal_basis": "gdpr.art17",
        "request_ref": "lane",
    }
    asked = client.post("/v1/erasures", json=body)
    asked.raise_for_status()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while client.get(f"/v1/erasures/{asked.json()['id']}").json()["executed_at"] is None:
        assert time.monotonic() < deadline, "an erasure is not carried out"
        time.sleep(0.1)


def _port_of(directory: Path) -> int:
    return int((directory / "port").read_text(encoding="ascii"))


def main() -> int:
    """Raises AssertionError or an error of HTTP when something is not as it should be."""
    with tempfile.TemporaryDirectory(prefix="mf-live-export-") as made:
        directory = Path(made)
        directory.chmod(0o711)  # the embedded PostgreSQL may be another user's, and has to get in
        port = _free_port()
        (directory / "port").write_text(str(port), encoding="ascii")
        environ = surroundings(directory / "data")
        key_file = str(directory / "witness.key")
        made_key = run_command(
            "witness", "keygen", "--name", WITNESS, "--key-file", key_file, environ=environ
        )
        assert made_key.code == 0, made_key.err
        witnesses = directory / "witnesses"
        vkey = made_key.out.strip()
        witnesses.write_text(
            f"witness w1 {vkey} http://127.0.0.1:{port}\nquorum w1\n", encoding="utf-8"
        )
        names = {"MESHFLOW_API_KEYS": f"acme:{KEY}", "MESHFLOW_WITNESSES": str(witnesses)}
        environ |= names
        with serving("--dev", environ=environ, log=directory / "log") as server:
            policy = _check(server, directory, environ)
        _rotate("enrolment", environ)
        with serving("--dev", environ=environ, log=directory / "log") as server:
            _check_after(server, directory, policy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
