"""Keys of a served MeshFlow: where they are shown, where not, and when they stop working."""

import hashlib
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.e2e.server_process import ServerProcess, run_command, serving, surroundings

FIRST = "first-key-0000000000000000000001"
SECOND = "second-key-000000000000000000002"


def test_the_printed_curl_line_runs_a_task_and_waits_for_it(dev_server: ServerProcess) -> None:
    words = shlex.split(dev_server.curl_line)
    if shutil.which("curl") is not None:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        answer = done.stdout
    else:
        headers = [words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H"]
        url = next(word for word in words if word.startswith("http"))
        body = words[words.index("-d") + 1]
        pairs = [(name, value) for name, value in headers]
        with httpx2.Client(trust_env=False, timeout=60) as client:
            answer = client.post(url, headers=pairs, content=body).text
    assert '"status":"succeeded"' in answer
    assert "6*7 = 42" in answer


def test_the_printed_docs_page_is_there(dev_server: ServerProcess) -> None:
    page = next(line.split()[-1] for line in dev_server.said if line.startswith("docs"))
    with httpx2.Client(trust_env=False) as client:
        assert client.get(page).status_code == 200


def test_one_printed_key_submits_and_the_other_approves(dev_server: ServerProcess) -> None:
    with dev_server.client(dev_server.approve_key) as client:
        assert client.post("/v1/runs", json={"task": "1+1"}).status_code == 403
        assert client.get("/v1/runs").status_code == 200
    with dev_server.client(dev_server.submit_key) as client:
        assert client.post("/v1/runs", json={"task": "1+1"}).status_code == 202
    with dev_server.client() as client:
        assert client.get("/v1/runs").status_code == 401


def test_the_printed_keys_are_nowhere_but_on_standard_output(
    dev_server: ServerProcess, data_dir: Path
) -> None:
    with dev_server.client() as client:
        # A key in a place where no key belongs: whoever logs addresses would log it.
        client.get("/v1/runs", params={"api_key": dev_server.submit_key})
    keys = [key.encode() for key in (dev_server.submit_key, dev_server.approve_key)]
    files = [path for path in data_dir.parent.rglob("*") if path.is_file()]
    command_lines = [path / "cmdline" for path in Path("/proc").iterdir() if path.name.isdigit()]
    read = 0
    for place in (dev_server.log, *files, *command_lines):
        try:
            content = place.read_bytes()
        except OSError:
            continue  # a process that has just ended, or a temporary file of the database
        read += 1
        assert not any(key in content for key in keys), place
    assert read > 3


def test_nothing_says_which_server_answers(dev_server: ServerProcess) -> None:
    with dev_server.client() as client:
        assert "server" not in client.get("/healthz").headers


def test_a_key_removed_from_the_file_is_refused_after_sighup(
    environ: dict[str, str], stage: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{FIRST}\n", encoding="ascii")
    told = {**environ, "MESHFLOW_API_KEYS_FILE": str(keys)}
    log = stage / "key-file.log"
    with serving(environ=told, log=log) as server:
        with server.client(FIRST) as client:
            assert client.get("/v1/runs").status_code == 200
        digest = hashlib.sha256(SECOND.encode()).hexdigest()
        keys.write_text(f"sha256:{digest}\n", encoding="ascii")
        server.process.send_signal(signal.SIGHUP)
        with server.client(FIRST) as old, server.client(SECOND) as new:
            while old.get("/v1/runs").status_code != 401:
                assert server.process.poll() is None
            assert new.get("/v1/runs").status_code == 200
        assert server.leave() == 0
    assert "keys read again: done" in log.read_text(encoding="utf-8")
    assert FIRST not in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({}, "no API keys"),
        ({"MESHFLOW_API_KEYS": "short-secret"}, "shorter than 24 characters"),
        ({"MESHFLOW_API_KEYS": "acme:fly:" + FIRST}, "unknown scope"),
        ({"MESHFLOW_API_KEYS": ""}, "set but empty"),
        ({"MESHFLOW_API_KEY": FIRST}, "did you mean MESHFLOW_API_KEYS?"),
    ],
)
def test_a_server_without_good_keys_does_not_start_and_does_not_echo_them(
    names: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    done = run_command("serve", "--port", "0", environ=surroundings(tmp_path / "data", **names))
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert FIRST not in done.err
    assert "short-secret" not in done.err
    assert not (tmp_path / "data").exists()


def test_an_address_in_use_is_one_sentence(
    dev_server: ServerProcess, environ: dict[str, str]
) -> None:
    port = dev_server.url.rpartition(":")[2]
    done = run_command("serve", "--dev", "--port", port, environ=environ)
    assert done.code == 1
    assert f"cannot listen on port {port}" in done.err
    assert "Traceback" not in done.err
