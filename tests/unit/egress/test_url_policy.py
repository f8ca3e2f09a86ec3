"""One reading of a URL, rules about hosts, and what a policy lets through."""

import pytest

from app.egress.faults import Fault
from app.egress.url_blocklist import UrlBlocklist
from app.egress.url_policy import (
    MAX_BODY_BYTES,
    MAX_URL_CHARS,
    HostRules,
    SafeUrl,
    UrlPolicy,
    followed,
    host_rules,
    read_url,
)


def rules(text: str) -> HostRules:
    found = host_rules(text)
    assert found is not None
    return found


def policy(hosts: str = "example.com, *.example.com", **words: frozenset[str]) -> UrlPolicy:
    return UrlPolicy(
        hosts=rules(hosts),
        blocklist=UrlBlocklist(),
        methods=words.get("methods", frozenset({"GET", "HEAD"})),
    )


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTPS://Example.COM./a?b#c", "https://example.com/a?b"),
        ("http://example.com:80/", "http://example.com/"),
        ("https://example.com:0443/", "https://example.com/"),
        ("https://example.com:8443/x", "https://example.com:8443/x"),
        ("http://example.com?q=1", "http://example.com/?q=1"),
        ("http://93.184.216.34/", "http://93.184.216.34/"),
        ("http://[2606:4700:4700:0::1111]:8080/", "http://[2606:4700:4700::1111]:8080/"),
        ("http://xn--bcher-kva.example/", "http://xn--bcher-kva.example/"),
        ("http://example.com/\u00e9?\u00fc=%zz", "http://example.com/%C3%A9?%C3%BC=%zz"),
        (
            "http://example.com/a|b?{c}='\"<d>`^",
            "http://example.com/a%7Cb?%7Bc%7D='%22%3Cd%3E%60%5E",
        ),
        ("http://example.com/a/../b;c=d,e'(f)!*", "http://example.com/a/../b;c=d,e'(f)!*"),
    ],
)
def test_a_plain_url_has_one_form(text: str, normal: str) -> None:
    assert str(read_url(text)) == normal


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", Fault.URL),
        ("example.com", Fault.URL),
        ("http:example.com", Fault.URL),
        ("http:///x", Fault.URL),
        ("http://", Fault.URL),
        ("http://example.com:", Fault.URL),
        ("http://example.com:x/", Fault.URL),
        ("http://example.com:0/", Fault.PORT),
        ("http://example.com:65536/", Fault.PORT),
        ("http://example.com:000080/", Fault.URL),
        ("http://a@example.com/", Fault.USERINFO),
        ("http://b\u00fccher.example/", Fault.URL),
        ("http://exa_mple.com/", Fault.URL),
        ("http://\u212aelvin.example/", Fault.URL),  # in lower case a plain k
        ("http://a|b.example/", Fault.URL),
        ("http://{a}.example/", Fault.URL),
        ("http://-a.example/", Fault.URL),
        ("http://localhost/", Fault.URL),
        ("http://example.com../", Fault.URL),
        ("http://127.1/", Fault.NUMERAL),
        ("http://a.0x7f/", Fault.NUMERAL),
        ("http://1.2.3.4.5/", Fault.NUMERAL),
        ("http://[::1%251]/", Fault.URL),
        ("http://[1.2.3.4]/", Fault.NUMERAL),
        ("file:///etc/passwd", Fault.SCHEME),
        ("http://example.com/a b", Fault.URL),
        ("http://example.com/a\\b", Fault.URL),
        ("http://example.com/\u2028", Fault.URL),
        ("http://example.com/\ud800", Fault.URL),
        ("http://example.com/" + "x" * MAX_URL_CHARS, Fault.URL),
    ],
)
def test_what_readers_have_read_differently_is_refused(text: str, fault: Fault) -> None:
    assert read_url(text) is fault


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("example.com", True),
        ("www.sub.example.com", True),
        ("EXAMPLE.com.", True),
        ("93.184.216.34", True),
        ("[2606:4700:4700::1111]", True),
        ("badexample.com", False),
        ("example.com.evil.test", False),
        ("example.org", True),
        ("www.example.org", False),
        ("only-below.example", False),
        ("x.only-below.example", True),
        ("93.184.216.35", False),
    ],
)
def test_hosts_are_named_exactly_or_by_what_they_stand_below(host: str, *, allowed: bool) -> None:
    listed = rules(
        "example.com, *.example.com, Example.ORG, *.only-below.example, 93.184.216.34,"
        " 2606:4700:4700::1111"
    )
    url = read_url(f"http://{host}/")
    assert isinstance(url, SafeUrl)
    assert listed.allows(url) is allowed


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "*", "*.com", "com", "localhost", "http://example.com", "example.com/x"),
        *("a b.example", "*.1.2.3.4", "*.*.example.com", "example.com:80", "b\u00fccher.example"),
        *("user@example.com", "127.1", "good.example, 0x7f", "10.0.0.1", "[::1]", "*.[::1]"),
    ],
)
def test_a_list_of_hosts_with_something_else_in_it_is_none(text: str) -> None:
    assert host_rules(text) is None


def test_rules_without_hosts_allow_nothing() -> None:
    url = read_url("http://example.com/")
    assert isinstance(url, SafeUrl)
    assert not HostRules().allows(url)


def test_a_body_needs_a_method_that_takes_one_and_has_a_size() -> None:
    sending = policy(methods=frozenset({"GET", "POST"}))
    assert isinstance(sending.judge("http://example.com/", "POST", b"x"), SafeUrl)
    assert sending.judge("http://example.com/", "GET", b"x") is Fault.BODY
    assert sending.judge("http://example.com/", "POST", b"x" * (MAX_BODY_BYTES + 1)) is Fault.BODY
    assert sending.judge("http://example.com/", "PUT") is Fault.METHOD
    assert policy().judge("http://example.com/", "POST") is Fault.METHOD
    assert sending.judge("http://example.com/", "get") is Fault.METHOD


def test_other_ports_have_to_be_named() -> None:
    assert policy().judge("http://example.com:8080/") is Fault.PORT
    more = UrlPolicy(hosts=rules("example.com"), blocklist=UrlBlocklist(), ports=frozenset({8080}))
    assert isinstance(more.judge("http://example.com:8080/"), SafeUrl)
    assert more.judge("http://example.com:22/") is Fault.PORT


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        (b"/x", "https://example.com/x"),
        (b"x?y", "https://example.com/a/x?y"),
        (b"//other.example/", "https://other.example/"),
        (b"http://127.0.0.1/", "http://127.0.0.1/"),
        (b"", None),
        (b"/\xe9", None),
        (b"/a b", None),
        (b"\\\\127.0.0.1\\", None),
        (b"/\x00", None),
        (b"http://[::1/", None),
    ],
)
def test_a_redirect_leads_where_a_base_makes_it_lead(location: bytes, leads: str | None) -> None:
    base = read_url("https://example.com/a/b")
    assert isinstance(base, SafeUrl)
    assert followed(base, location) == leads


def test_a_scheme_that_a_policy_leaves_out_is_refused() -> None:
    secure = UrlPolicy(
        hosts=rules("example.com"), blocklist=UrlBlocklist(), schemes=frozenset({"https"})
    )
    assert secure.judge("http://example.com/") is Fault.SCHEME
    assert isinstance(secure.judge("https://example.com/"), SafeUrl)


def test_an_address_is_below_no_name_whatever_it_ends_in() -> None:
    url = read_url("http://10.0.0.1/")
    assert not isinstance(url, Fault)
    assert not HostRules(below=frozenset({"0.0.1", "0.1"})).allows(url)
    assert HostRules(exact=frozenset({"10.0.0.1"})).allows(url)
