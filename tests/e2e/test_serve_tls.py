import ssl
from pathlib import Path

import httpx2
import pytest

from tests.e2e.certificates import Pair, make_pair
from tests.e2e.server_process import run_command, serving, surroundings


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"), "server")


@pytest.fixture
def untouched(tmp_path: Path) -> dict[str, str]:
    """A data directory that a refused start must not even make."""
    return surroundings(tmp_path / "data")


def trusting(pair: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=pair.certificate)


def test_a_pair_makes_https_and_nothing_but_https(
    pair: Pair, environ: dict[str, str], stage: Path, tmp_path: Path
) -> None:
    words = ("--dev", "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
    with serving(*words, environ=environ, log=stage / "tls.log") as server:
        assert server.url.startswith("https://127.0.0.1:")
        with httpx2.Client(base_url=server.url, verify=trusting(pair), trust_env=False) as client:
            assert client.get("/healthz").json() == {"status": "ok", "sandbox": "strict"}
        with httpx2.Client(trust_env=False) as client, pytest.raises(httpx2.TransportError):
            client.get(server.url.replace("https:", "http:") + "/healthz")
        assert f"--cacert '{pair.certificate}'" in server.curl_line
        key_file = tmp_path / "key"
        key_file.write_text(server.submit_key, encoding="ascii")
        told = ("run", "2+3", "--url", server.url, "--key-file", str(key_file))
        trusted = run_command(*told, "--ca-file", str(pair.certificate), environ=environ)
        assert (trusted.code, trusted.out.split()[-1]) == (0, "5.")
        distrusted = run_command(*told, environ=environ)
        assert distrusted.code == 1
        assert "no answer from https://127.0.0.1" in distrusted.err


BAD_PAIRS = {
    "certificate alone": (("cert",), "--tls-cert was given without --tls-key"),
    "key alone": (("key",), "--tls-key was given without --tls-cert"),
    "another's key": (("cert", "other key"), "does not belong to"),
    "missing key": (("cert", "missing"), "the TLS key cannot be read"),
    "missing certificate": (("missing cert", "key"), "the TLS certificate cannot be read"),
    "directory for a key": (("cert", "directory"), "the TLS key cannot be read"),
    "garbage certificate": (("garbage cert", "key"), "not usable PEM"),
    "garbage key": (("cert", "garbage"), "not usable PEM"),
    "encrypted key": (("cert", "locked"), "the TLS key is encrypted"),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_a_pair_that_cannot_serve_is_refused_before_anything_starts(
    case: str, pair: Pair, tmp_path: Path, untouched: dict[str, str]
) -> None:
    (tmp_path / "garbage").write_bytes(b"\x00\xffnot PEM at all")
    files = {
        "cert": ("--tls-cert", pair.certificate),
        "key": ("--tls-key", pair.key),
        "other key": ("--tls-key", make_pair(tmp_path, "other").key),
        "missing": ("--tls-key", tmp_path / "nowhere"),
        "missing cert": ("--tls-cert", tmp_path / "nowhere"),
        "directory": ("--tls-key", tmp_path),
        "garbage cert": ("--tls-cert", tmp_path / "garbage"),
        "garbage": ("--tls-key", tmp_path / "garbage"),
        "locked": ("--tls-key", pair.encrypted_key),
    }
    names, sentence = BAD_PAIRS[case]
    words = [str(word) for name in names for word in files[name]]
    done = run_command("serve", "--dev", "--port", "0", *words, environ=untouched)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])  # noqa: S104 - what must be refused
def test_plain_http_off_loopback_is_refused(
    host: str, tmp_path: Path, untouched: dict[str, str]
) -> None:
    words = ("serve", "--dev", "--port", "0", f"--host={host}")
    done = run_command(*words, environ={**untouched, "MESHFLOW_HOST": "0.0.0.0"})  # noqa: S104 - as above
    assert (done.code, done.out) == (2, "")
    assert "plain HTTP is served on loopback only" in done.err
    assert not (tmp_path / "data").exists()


def test_a_proxy_that_does_tls_may_be_spoken_to_in_plain_http(
    environ: dict[str, str], stage: Path
) -> None:
    words = ("--dev", "--behind-tls-proxy", "--host", "0.0.0.0")  # noqa: S104 - allowed by the flag
    with serving(*words, environ=environ, log=stage / "proxied.log") as server:
        port = server.url.rpartition(":")[2]
        with httpx2.Client(trust_env=False) as client:
            assert client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
            server.process.terminate()
            # It is unready and goes on answering, so that a load balancer can look elsewhere.
            while client.get(f"http://127.0.0.1:{port}/readyz").status_code != 503:
                pass
            assert client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        server.process.send_signal(2)  # an impatient operator: no more waiting
        assert server.process.wait(120) == 0


def test_a_trusted_proxy_without_a_proxy_is_a_contradiction(untouched: dict[str, str]) -> None:
    done = run_command("serve", "--dev", "--trusted-proxy", "10.0.0.1", environ=untouched)
    assert done.code == 2
    assert "needs --behind-tls-proxy" in done.err
