"""The first layer: the shipped patterns, and an operator's that only add."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import ConfigurationError
from app.egress.egress_settings import shipped_blocklist
from app.egress.url_blocklist import UrlBlocklist, blocklist

SHIPPED = shipped_blocklist()
_CORPUS = Path(__file__).parents[2] / "security" / "corpus" / "url_first_layer.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in _CORPUS.read_text().splitlines()]
OWN = b"[own]\npattern = 'top-secret'\nwhy = 'ours'\n"


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_each_part_of_each_pattern_finds_what_no_other_does(row: dict[str, Any]) -> None:
    """Every alternative of the shipped patterns has a row that it alone finds."""
    body = row["body"].encode() or None
    assert SHIPPED.finds(row["url"], row["url"], body) == row["entry"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://169.254.169.254/latest/", "metadata-address"),
        ("http://metadata.google.internal/", "metadata-name"),
        ("http://ok.example/proxy?u=http://LocalHost/", "loopback"),
        ("http://ok.example/proxy?u=http%253A%252F%252F127.0.0.1", "loopback"),
        ("http://db.svc.cluster.local/", "inside-names"),
        ("http://ok.example/?u=gopher://x", "other-scheme"),
        ("http://10.0.0.1.nip.io/", "address-in-a-name"),
        ("https://webhook.site/1234", "drop-box"),
        ("http://ok.example/iam/security-credentials/", "instance-credentials"),
        ("http://ok.example/%0d%0aMAIL%20FROM:x", "command-smuggling"),
        ("http://instance-data/latest", "metadata-name"),
    ],
)
def test_a_url_of_its_kind_is_found(url: str, name: str) -> None:
    assert SHIPPED.finds(url, url, None) == name


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"-----BEGIN OPENSSH PRIVATE KEY-----", "private-key"),
        (b"key=AKIAIOSFODNN7EXAMPLE", "cloud-key"),
        (b"key%3DAKIAIOSFODNN7EXAMPLE", "cloud-key"),
        (b"root:x:0:0:root:/:/bin/sh", "password-file"),
        (b'{"u": "http://169.254.169.254/"}', "metadata-address"),
    ],
)
def test_a_body_of_its_kind_is_found(body: bytes, name: str) -> None:
    assert SHIPPED.finds("https://ok.example/", "https://ok.example/", body) == name


@pytest.mark.parametrize(
    "url",
    [
        "https://www.example.com/",
        "https://docs.python.org/3/library/ipaddress.html#x",
        "https://api.example.com/v1/items?q=local&page=2",
        "https://example.com/a%20b?date=2026-01-01T00:00:00Z",
        "https://en.wikipedia.org/wiki/Metadata",
        "https://example.com/datasets/file.json",
        "https://internal-medicine.example.org/home",
        "https://profile.io/x",
        "https://www.snip.io/",
        "https://toast.me/bread.local.html",
        "https://mylocalhost-tools.example/",
        "https://docs.example.com/latest/user-data.html",
        "https://example.com/instance-data-sheets",
        "https://example.com/?text=one%0D%0Atwo:%20three",
        "https://example.com/?a=1&u=https%3A%2F%2Fwww.example.org%2Fhome",
    ],
)
def test_an_ordinary_url_is_not(url: str) -> None:
    assert SHIPPED.finds(url, url, b'{"note": "an ordinary body"}') is None


def test_an_operators_file_adds(tmp_path: Path) -> None:
    del tmp_path
    both = shipped_blocklist([OWN])
    assert len(both.entries) == len(SHIPPED.entries) + 1
    assert both.finds("http://ok.example/Top-Secret", "", None) == "own"
    assert both.finds("http://169.254.169.254/", "", None) == "metadata-address"


def test_an_entry_looks_only_where_it_is_told_to() -> None:
    document = (
        b"[a]\npattern='x1'\nwhy='w'\nwhere='url'\n[b]\npattern='x2'\nwhy='w'\nwhere='body'\n"
    )
    listed = blocklist([document])
    assert listed.finds("x1", "", None) == "a"
    assert listed.finds("y", "", b"x1") is None
    assert listed.finds("x2", "", None) is None
    assert listed.finds("y", "", b"x2") == "b"


@pytest.mark.parametrize(
    "document",
    [
        b"[metadata-address]\npattern = 'nothing'\nwhy = 'to take the shipped one away'\n",
        b"not toml",
        b"\xff",
        b"[a]\npattern = 'x'\n",
        b"[a]\nwhy = 'x'\n",
        b"a = 'x'\n",
        b"[a]\npattern = '('\nwhy = 'broken'\n",
        b"[a]\npattern = '(?=x)'\nwhy = 'look-around'\n",
        b"[a]\npattern = ''\nwhy = 'empty'\n",
        b"[a]\npattern = 5\nwhy = 'a number'\n",
        b"[a]\npattern = 'x'\nwhy = 'w'\nwhere = 'head'\n",
        b"[a]\npattern = 'x'\nwhy = 'w'\nenabled = false\n",
        b"[a]\npattern = '" + b"x" * 501 + b"'\nwhy = 'w'\n",
    ],
)
def test_a_file_that_takes_away_or_is_broken_refuses_to_start(document: bytes) -> None:
    with pytest.raises(ConfigurationError) as refused:
        shipped_blocklist([document])
    assert "blocklist" in str(refused.value)


def test_an_empty_blocklist_finds_nothing() -> None:
    assert UrlBlocklist().finds("http://169.254.169.254/", "", b"x") is None
