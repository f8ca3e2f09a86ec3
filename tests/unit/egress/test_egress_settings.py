"""What an operator may say of outgoing requests, and what refuses to start."""

import json
from pathlib import Path

import pytest

from app import run_assembly
from app.domain.errors import ConfigurationError
from app.egress.faults import Fault
from app.settings import Settings

VALUE = "tok-1234567890abcdef"
LINE = f"http_fetch api.example.com Authorization: Bearer {VALUE}"


def read(**names: str) -> Settings:
    environ = {f"MESHFLOW_{name}": value for name, value in names.items()}
    return Settings.from_environ(environ, uid=1000, home=Path("/home/somebody"))


def test_without_a_word_nothing_may_be_fetched() -> None:
    egress = read().egress
    assert egress.fetch_policy() is None
    assert egress.credentials() == ()
    assert egress.secret_values() == []


def test_what_is_said_is_what_holds() -> None:
    settings = read(
        FETCH_HOSTS="example.com, *.example.org",
        FETCH_PORTS="8443,9443",
        FETCH_METHODS="get, post",
        EGRESS_DENIED_NETWORKS="203.0.114.0/24, 2606:4700::/32",
        TOOL_CREDENTIALS=LINE,
    )
    policy = settings.egress.fetch_policy()
    assert policy is not None
    assert policy.ports == {8443, 9443}
    assert policy.methods == {"GET", "POST"}
    assert str(policy.hosts) == "example.com, *.example.org"
    assert len(policy.blocklist.entries) > 5
    assert [str(network) for network in settings.egress.denied] == [
        "203.0.114.0/24",
        "2606:4700::/32",
    ]
    shown = {name: value for name, value, _ in settings.describe()}
    assert shown["MESHFLOW_FETCH_PORTS"] == "8443, 9443"
    assert shown["MESHFLOW_EGRESS_DENIED_NETWORKS"] == "203.0.114.0/24, 2606:4700::/32"


def test_a_credential_is_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "bindings"
    file.write_text(f"# ours\n{LINE}\n")
    for settings in (read(TOOL_CREDENTIALS=LINE), read(TOOL_CREDENTIALS_FILE=str(file))):
        assert settings.egress.credentials()[0].value == f"Bearer {VALUE}"
        assert settings.egress.secret_values() == [f"Bearer {VALUE}", VALUE]
        for text in (repr(settings), str(settings.egress), json.dumps(settings.describe())):
            assert VALUE not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FETCH_HOSTS", "*"),
        ("FETCH_HOSTS", "localhost"),
        ("FETCH_HOSTS", "https://example.com"),
        ("FETCH_PORTS", "0"),
        ("FETCH_PORTS", "80,http"),
        ("FETCH_PORTS", "\u0661"),
        ("FETCH_METHODS", "CONNECT"),
        ("FETCH_METHODS", "GET,TRACE"),
        ("EGRESS_DENIED_NETWORKS", "10.0.0.1/8"),
        ("EGRESS_DENIED_NETWORKS", "cluster"),
        ("TOOL_CREDENTIALS", f"http_fetch *.example.com X: {VALUE}"),
        ("TOOL_CREDENTIALS", VALUE),
    ],
)
def test_a_bad_value_refuses_to_start_and_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(**{name: value})
    assert f"MESHFLOW_{name}" in str(refused.value)
    assert VALUE not in str(refused.value)


def test_a_blocklist_that_cannot_be_read_refuses_to_start(tmp_path: Path) -> None:
    missing = read(URL_BLOCKLIST_FILE=str(tmp_path / "none")).egress
    (tmp_path / "big").write_bytes(b"#" * ((1 << 20) + 1))
    big = read(URL_BLOCKLIST_FILE=str(tmp_path / "big")).egress
    for egress in (missing, big):
        with pytest.raises(ConfigurationError, match="URL_BLOCKLIST_FILE") as refused:
            egress.fetch_policy()
        assert str(tmp_path) not in str(refused.value)


def test_an_operators_blocklist_is_in_force_beside_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("[own]\npattern = 'top-secret'\nwhy = 'ours'\n")
    egress = read(FETCH_HOSTS="example.com", URL_BLOCKLIST_FILE=str(own)).egress
    policy = egress.fetch_policy()
    assert policy is not None
    assert policy.judge("https://example.com/top-secret") is Fault.BLOCKED
    assert policy.judge("https://example.com/?u=gopher://x") is Fault.BLOCKED
    assert not isinstance(policy.judge("https://example.com/x"), Fault)


def test_the_scrubber_of_records_knows_the_credentials() -> None:
    assert {VALUE, f"Bearer {VALUE}"} <= set(run_assembly._own_secrets(read(TOOL_CREDENTIALS=LINE)))
