"""How an operator writes a credential down, where it fits, and how an echo of it is covered."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.egress.tool_credentials import COVER, ToolCredential, covered, tool_credentials
from app.egress.url_policy import SafeUrl, read_url

VALUE = "tok-1234567890abcdef"
LINE = f"http_fetch api.example.com Authorization: Bearer {VALUE}"


def only(text: str) -> ToolCredential:
    found = tool_credentials(text)
    assert found is not None
    assert len(found) == 1
    return found[0]


def url(text: str) -> SafeUrl:
    read = read_url(text)
    assert isinstance(read, SafeUrl)
    return read


def test_a_line_binds_a_field_to_a_tool_and_an_origin() -> None:
    one = only(f"# of the billing service\n\n  {LINE}\n")
    assert (one.tool, one.host, one.port) == ("http_fetch", "api.example.com", 443)
    assert (one.header, one.value) == ("Authorization", f"Bearer {VALUE}")
    assert only(LINE.replace("com", "com:8443")).port == 8443
    assert only(LINE.replace("api.example.com", "API.Example.com.")).host == "api.example.com"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("https://api.example.com/x", True),
        ("https://api.example.com:443/", True),
        ("http://api.example.com/", False),
        ("http://api.example.com:443/", False),
        ("https://api.example.com:8443/", False),
        ("https://www.api.example.com/", False),
        ("https://example.com/", False),
    ],
)
def test_it_fits_one_origin_over_tls(text: str, *, fits: bool) -> None:
    assert only(LINE).fits(url(text)) is fits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "http_fetch api.example.com",
        "http_fetch api.example.com Authorization Bearer tok-1234567890",
        "http_fetch api.example.com Authorization: short",
        "http_fetch api.example.com Authorization: Bearer short",
        "http_fetch *.example.com Authorization: Bearer tok-1234567890abcdef",
        "http_fetch localhost Authorization: Bearer tok-1234567890abcdef",
        "http_fetch https://api.example.com Authorization: Bearer tok-1234567890abcdef",
        "http_fetch api.example.com:0 Authorization: Bearer tok-1234567890abcdef",
        "http_fetch api.example.com:99999 Authorization: Bearer tok-1234567890abcdef",
        "http_fetch api.example.com Host: tok-1234567890abcdef",
        "http_fetch api.example.com transfer-encoding: tok-1234567890abcdef",
        "http_fetch api.example.com X-Key: tok-1234567890\u00e9bcdef",
        f"{LINE}\n{LINE}",
        f"{LINE}\nnonsense",
    ],
)
def test_a_line_that_is_none_spoils_the_file(text: str) -> None:
    assert tool_credentials(text) is None


def test_no_repr_shows_the_value() -> None:
    assert VALUE not in repr(only(LINE))
    assert VALUE not in f"{only(LINE)} {tool_credentials(LINE)}"


@given(st.text(max_size=50), st.text(max_size=50))
def test_an_echo_is_covered(before: str, after: str) -> None:
    assert VALUE not in covered(f"{before}{VALUE}{after}", [only(LINE)])


def test_the_forms_of_an_echo_are_covered() -> None:
    pair = base64.b64encode(b"user:pass-word-of-the-user").decode()
    basic = only(f"http_fetch api.example.com Authorization: Basic {pair}")
    odd = only('http_fetch api.example.com X-Key: a"b/c=d+e_f&g\\h12345')
    text = f"{pair} user:pass-word-of-the-user pass-word-of-the-user"
    assert covered(text, [basic]) == f"{COVER} {COVER} {COVER}"
    assert "12345" not in covered('{"k": "a\\"b/c=d+e_f&g\\\\h12345"}', [odd])
    assert "12345" not in covered("?k=a%22b%2Fc%3Dd%2Be_f%26g%5Ch12345", [odd])
    assert covered("an ordinary text", [basic, odd]) == "an ordinary text"


def test_an_echo_in_other_letters_is_covered() -> None:
    assert covered(f"x {VALUE.upper()} y", [only(LINE)]) == f"x {COVER} y"
