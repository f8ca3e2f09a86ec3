"""Every rule finds its own example, matters, and leaves ordinary text alone."""

import base64
import json
from urllib.parse import quote

import pytest

from app.privacy.scrubber import Scrubber
from app.privacy.secret_families import FAMILIES
from app.privacy.secret_words import WORDED
from app.privacy.secrets import ENTROPY, KEYWORD, RuleSet, default_rules
from tests.unit.privacy.made_secrets import SHAPES, WORDED_SHAPES, framed, made

RULES = sorted({f.name for f in FAMILIES} | {rule[0] for rule in WORDED} | {ENTROPY, KEYWORD})


def test_every_rule_has_an_example_and_every_example_a_rule() -> None:
    assert sorted({*SHAPES, *WORDED_SHAPES}) == RULES
    assert len({f.name for f in FAMILIES}) == len(FAMILIES) >= 120


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", range(5))
def test_a_rule_cuts_out_its_whole_example_and_signs_for_it(name: str, seed: int) -> None:
    secret = made(name, seed)
    expected = framed(name, f"[SECRET:{name}]")
    assert Scrubber([]).scrub_text(framed(name, secret)) == expected


@pytest.mark.parametrize("name", RULES)
def test_switching_a_rule_off_shows(name: str) -> None:
    text = framed(name, made(name))
    less = Scrubber([], default_rules().without(name))
    assert less.scrub_text(text) != Scrubber([]).scrub_text(text)
    assert less.scrub({}).block.rules != Scrubber([]).scrub({}).block.rules


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("before", ["\n", "\\n", "=", '"', "(", "%20", "key:", "é"])
def test_a_vendor_token_is_found_whatever_stands_before_it(name: str, before: str) -> None:
    secret = made(name)
    if framed(name, "") == "got  from the box":
        assert secret not in Scrubber([]).scrub_text(f"x{before}{secret}\n")


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("before", "after"), [("\n", "\n"), ("\t", "\t"), ("\r\n", "\r\n")])
def test_a_secret_on_a_line_of_its_own_never_reaches_the_ledger(
    name: str, before: str, after: str
) -> None:
    secret = made(name)
    sealed = Scrubber([]).scrub({"content": f"x{before}{framed(name, secret)}{after}y"}).value
    assert json.dumps(secret)[1:-1].encode() not in sealed


KEYED = [
    ('password = "{}"', "hunter22"),
    ("password: {}", "hunter22"),
    ("'passwd': '{}'", "hunter22"),
    ('{{\\"client_secret\\": \\"{}\\"}}', "hunter22"),
    ("export API_KEY={}", "swordfish"),
    ("AWS_SECRET_ACCESS_KEY={}", "abc/def+ghi123"),
    ("https://h.example/p?api_key={}&x=1", "abcdef"),
    ("password%3D{}", "hunter22"),
    ('config["secret"] = "{}"', "hunter22"),
    ("secret => '{}'", "hunter22"),
    ("X-Api-Key: {}", "abc123def"),
    ("access token: {}", "abc123def456"),
    ("passwort: {}", "geheim99"),
    ("token={}", "abc123def456"),
    ("Authorization: Bearer {}", "abc123def456"),
    ('"Authorization": "Basic {}"', "dXNlcjpwYXNz" + "MTIz"),
    ("curl -H 'Authorization: token {}'", "0123456789" + "abcdef0123"),
    ("mongodb+srv://app:{}@db.example/x", "pa/ss@w0rd"),
    ("password\uff1a{}", "hunter22"),
    ("api_key \uff1d {}", "hunter22"),
    ("curl https://h.example/p \\\n  -u robot:{} \\\n  -o page", "hunter22"),
    ("sshpass -p '{}' ssh robot@h.example", "hunter22"),
    ("mysqldump \\\n  -h db -p{} shop", "hunter22"),
]


@pytest.mark.parametrize(("frame", "value"), KEYED)
def test_a_value_beside_a_key_word_is_cut_out(frame: str, value: str) -> None:
    assert value not in Scrubber([]).scrub_text(frame.format(value))


BENIGN = [
    "The password must be at least 8 characters and the token expires after 30 minutes.",
    "Password: required. Secret: optional. API key: see the manual.",
    "password = get_password()",
    "login(user, password=password, token=token)",
    'api_key=os.environ["ANTHROPIC_API_KEY"]',
    "api_key=settings.api_key",
    "export TOKEN=${TOKEN}",
    "DB_PASSWORD=<password>",
    "password: '********'",
    'password="{{ db_password }}"',
    "max_tokens: 4096, total_tokens=123456, token_count: 99",
    "compass: north; bypass: true; keyboard: qwerty123",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "integrity sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGl",
    "etag: aB3dE6gH9jK2mN5pQ8sT",
    "id 123e4567-e89b-12d3-a456-426614174000",
    "run_" + "0a" * 16,
    "req_011CSHoEeqs5C35K2UUqR7Fy msg_01XFDUDYJgAANPZoW6abcdef",
    "src/app/Main2Activity.java:120 and getUserById2FromDatabaseV3",
    "aGVsbG8gd29ybGQgdGhpcyBpcyBwcm9zZQ==",
    "a token is base64 of a text; the secret is sha256 encoded",
    "task-based disk-image risk-averse-and-something-else-entirely",
    "http://host:8080/path/to@here and https://example.com/a/b?page=2",
    "The cookie: a small file. Bearer authentication is used here.",
    "class Auth: password: OAuthFlowPassword | None = None",
    "next_page_token=aB3dE6gH9jK2mN5p",
    "2026-01-15T10:30:00Z 192.168.1.100 3.14159265358979 -1e-7",
    "Zufällige Wörter, naïve café, 日本語のテキスト, Пароль нужен.",
    "pid 1234 session: run_" + "1b" * 16,
    "mysql -h db -P 3306 -u app -p shop < dump.sql; mysql -P3306 -p",
    "sshpass -f secrets.txt ssh -p 2222 robot@h.example",
    "mysql -p$MYSQL_PASSWORD and curl -u $USER:$PASS https://h.example",
]


@pytest.mark.parametrize("text", BENIGN)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert Scrubber([]).scrub_text(text) == text


OWN = "mfk_Own-Key_0123456789abcdefghij"


def _forms() -> list[str]:
    raw = OWN.encode()
    out = [OWN, quote("a+/&" + OWN)[-len(OWN) :], raw.hex(), raw.hex().upper()]
    for shift in range(3):
        text = base64.b64encode(b"user:"[: shift + 2] + raw + b" tail")
        out += [text.decode(), text.decode().replace("+", "-").replace("/", "_")]
    return out


@pytest.mark.parametrize("form", _forms())
def test_the_servers_own_key_is_cut_out_in_every_encoding(form: str) -> None:
    everything = frozenset(RULES)
    bare = RuleSet(everything)
    assert form not in Scrubber([OWN], bare).scrub_text(f"before {form} after")
    assert Scrubber([], bare).scrub_text(f"before {form} after") == f"before {form} after"


def test_own_keys_with_odd_signs_are_found_escaped_too() -> None:
    own = 'pa"ss\\word/ü&x'
    scrubber = Scrubber([own])
    for form in (own, quote(own, safe=""), 'pa\\"ss\\\\word/ü&x', 'pa\\"ss\\\\word/\\u00fc&x'):
        assert form not in scrubber.scrub_text(f"dsn {form} end")


def test_base64_of_a_text_with_a_secret_in_it_goes_whole() -> None:
    hidden = base64.b64encode(b"DB_PASSWORD=hunter22 and more").decode()
    assert Scrubber([]).scrub_text(f"data {hidden}") == "data [SECRET:high-entropy]"


def test_a_certificate_is_public_and_stays() -> None:
    body = "\n".join(made("high-entropy", n) + "q" * 34 for n in range(3))
    text = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----"
    assert Scrubber([]).scrub_text(text) == text


def test_a_private_key_without_an_end_goes_to_the_end_of_the_text() -> None:
    head = "-----BEGIN " + "PRIVATE KEY-----\n"
    assert Scrubber([]).scrub_text(f"log {head}abc\ndef") == "log [SECRET:private-key]"
