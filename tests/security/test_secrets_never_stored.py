"""Whatever carries a secret into the scrubber, its bytes hold none of it afterwards."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.run import Json
from app.privacy import token_entropy
from app.privacy.scrubber import Scrubber, canonical
from app.privacy.secrets import RuleSet, Span, default_rules
from tests.unit.privacy.made_secrets import FRAMES, SHAPES, filled, framed, made

OWN = "mfk_Own-Key_0123456789abcdefghij"
SCRUBBER = Scrubber([OWN])
STANDING_ALONE = sorted(name for name in SHAPES if name not in FRAMES)

secrets = st.builds(made, st.sampled_from(STANDING_ALONE), st.integers(0, 10**6))
passwords = st.builds(lambda n: filled("{l6}{d3}", n), st.integers(0, 10**6))
benign = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip

CARRIERS = {
    "prose": lambda s: f"He said {s} was it.",
    "env": lambda s: f"A=1\nMY_API_KEY={s}\nB=2",
    "header": lambda s: f"GET / HTTP/1.1\r\nAuthorization: Bearer {s}\r\nAccept: */*",
    "query": lambda s: f"https://h.example/p?api_key={s}&page=2",
    "json text": lambda s: json.dumps({"deep": [{"x": f"log: {s}"}]}),
    "json in json": lambda s: json.dumps({"a": json.dumps({"secret": s})}),
    "traceback": lambda s: f'  File "a.py", line 3\nValueError: bad key {s!r}',
    "markdown": lambda s: f"```\nkey = '{s}'\n```",
    "yaml": lambda s: f"a:\n  - name: x\n    password: {s}\n",
    "csv": lambda s: f"id,key\n1,{s}\n",
    "wide letters": lambda s: f"日本{s}語",
}


def _placed(place: str, text: str, around: Json) -> Json:
    match place:
        case "leaf":
            return text
        case "nested":
            return {"a": [around, {"b": [text]}], "z": around}
        case "key":
            return {"m": {text: 1, "other": around}}
        case _:
            return [around, [[[{"v": text}]]]]


def _gone(secret: str, out: bytes) -> bool:
    escaped = json.dumps(secret, ensure_ascii=False)[1:-1].encode()
    twice = json.dumps(escaped.decode(), ensure_ascii=False)[1:-1].encode()
    forms = (secret.encode(), escaped, twice, quote(secret, safe="").encode())
    return not any(form in out for form in forms)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    secrets,
    st.sampled_from(sorted(CARRIERS)),
    st.sampled_from(["leaf", "nested", "key", "deep"]),
    benign,
)
def test_a_generated_secret_survives_in_no_carrier(
    secret: str, carrier: str, place: str, around: Json
) -> None:
    done = SCRUBBER.scrub(_placed(place, CARRIERS[carrier](secret), around))
    assert _gone(secret, done.value)
    assert done.block.status == "ok"
    assert done.block.counts["secret"] >= 1
    json.loads(done.value)


@settings(max_examples=200, deadline=None)
@given(
    passwords,
    st.sampled_from(["env", "query", "json in json", "yaml"]),
    st.sampled_from(["leaf", "nested", "key", "deep"]),
)
def test_a_plain_password_beside_its_key_survives_in_no_carrier(
    secret: str, carrier: str, place: str
) -> None:
    done = SCRUBBER.scrub(_placed(place, CARRIERS[carrier](secret), None))
    assert _gone(secret, done.value)


@pytest.mark.parametrize(
    "value",
    [
        {"password": "hunter22"},
        {"DB-Password": "correct horse battery staple"},
        {"userPassword": ["hunter22", "hunter22"]},
        {"api_key": "swordfish"},
        {"password": 123456789},
        {"token": "abc123def456"},
        {"Authorization": "Bearer abc123def456"},
        {"cookie": "sid=abc123def456"},
        {"name": "API_KEY", "value": "swordfish"},
        [["X-Api-Key", "swordfish"]],
        {"body": '{"password": "correct horse"}'},
    ],
)
def test_a_value_under_a_secret_key_is_withheld_by_the_keys_name(value: Json) -> None:
    out = SCRUBBER.scrub(value).value
    for secret in (b"hunter22", b"horse", b"swordfish", b"123456789", b"abc123def456"):
        assert secret not in out


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(benign, secrets, st.sampled_from(sorted(CARRIERS)))
def test_scrubbing_twice_gives_the_same_bytes(around: Json, secret: str, carrier: str) -> None:
    once = SCRUBBER.scrub({"t": CARRIERS[carrier](secret), "u": around, secret: [OWN]})
    assert SCRUBBER.scrub(json.loads(once.value)).value == once.value


_SHARDS = [
    "password", "=", ":", " ", '"', "\\", "token", "[SECRET:", "keyword]", "://u:", "@", "x1",
    "-----BEGIN ", "PRIVATE KEY-----", "Bearer ", "cookie: a=", ";", "\n", "{", "}", "aB3dE6gH9j",
    "s" + "k-", "eyJ", ".", "--token ", " is ", "$2b$", "é", "[", "]", "/", "'", "b'",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(_SHARDS), max_size=30).map("".join))
def test_text_made_of_the_rules_own_words_settles(text: str) -> None:
    once = SCRUBBER.scrub_text(text)
    assert SCRUBBER.scrub_text(once) == once
    done = SCRUBBER.scrub([text])
    assert done.block.status == "ok"
    assert SCRUBBER.scrub(json.loads(done.value)).value == done.value


def _shape(value: Json) -> object:
    match value:
        case dict():
            return sorted(json.dumps(_shape(item)) for item in value.values())
        case list():
            return [_shape(item) for item in value]
        case _:
            return type(value).__name__


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(benign, secrets)
def test_the_shape_stays(around: Json, secret: str) -> None:
    value: Json = {"a": around, "b": [secret, 1], secret: {"c": 2.5, f"{secret} ": None}}
    done = json.loads(SCRUBBER.scrub(value).value)
    assert _shape(done) == _shape(json.loads(canonical(value)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(benign)
def test_what_holds_no_secret_is_only_made_canonical(value: Json) -> None:
    done = SCRUBBER.scrub(value)
    assert done.value == canonical(value)
    assert done.block.counts == {"secret": 0}


def test_two_secret_keys_that_become_equal_are_both_kept() -> None:
    one, two = made("github-token", 1), made("github-token", 2)
    out = json.loads(SCRUBBER.scrub({one: 1, two: 2, "[SECRET:github-token]": 3}).value)
    assert sorted(out.values()) == [1, 2, 3]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_lone_surrogates_never_stop_it(text: str) -> None:
    done = SCRUBBER.scrub({"a": "\ud800" + text, "\udfff" + text: made("npm")})
    assert done.block.status == "ok"
    assert done.value.decode().count("\ufffd") >= 2
    assert _gone(made("npm"), done.value)
    SCRUBBER.scrub_text("\ud800" + text + made("npm")).encode()


class BrokenRuleError(Exception):
    """What a rule may raise."""


class BrokenRules(RuleSet):
    def spans(self, text: bytes) -> list[Span]:
        raise BrokenRuleError(text.decode())


def _nested(depth: int) -> Json:
    value: Json = made("github-token")
    for _ in range(depth):
        value = [value]
    return value


def _stub(error: str) -> bytes:
    return canonical(
        {
            "scrub": {"status": "failed", "error": error},
            "body": "[UNSCRUBBED CONTENT WITHHELD]",
        }
    )


def test_a_rule_that_raises_withholds_everything() -> None:
    broken = Scrubber([], BrokenRules())
    done = broken.scrub({"a": framed("keyword", "hunter22")})
    assert done.value == _stub("BrokenRuleError")
    assert (done.block.status, done.block.unscanned) == ("failed", 1)
    assert broken.scrub_text("PASSWORD=hunter22") == "[UNSCRUBBED CONTENT WITHHELD]"


class RestlessRules(RuleSet):
    def spans(self, text: bytes) -> list[Span]:
        return [(0, min(1, len(text)), "No mark the scrubber knows")]


def test_a_text_that_never_settles_is_withheld() -> None:
    restless = Scrubber([], RestlessRules())
    assert restless.scrub({"a": "PASSWORD=hunter22"}).value == _stub("UnsettledError")
    assert restless.scrub_text("PASSWORD=hunter22") == "[UNSCRUBBED CONTENT WITHHELD]"


def test_an_escape_before_a_token_does_not_make_it_look_harmless() -> None:
    secret = "s_" + made("high-entropy")
    assert _gone(secret[2:], SCRUBBER.scrub({"a": "\r" + secret}).value)


def test_an_own_key_that_reads_like_a_mark_does_not_unsettle_the_marks() -> None:
    odd = Scrubber(["SECRET:keyword"])
    done = odd.scrub({"a": "PASSWORD=hunter22 SECRET:keyword"})
    assert done.value == b'{"a":"PASSWORD=[SECRET:keyword] [SECRET:own]"}'


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (_nested(65), "UnscannableError"),
        (_nested(5000), "UnscannableError"),
        ("x" * (2 << 20), "UnscannableError"),
        (["é" * (1 << 20)], "UnscannableError"),
        ({"a": float("nan")}, "ValueError"),
        ({"a": b"bytes"}, "UnscannableError"),
        ({1: "a"}, "UnscannableError"),
        (object(), "UnscannableError"),
    ],
)
def test_what_cannot_be_looked_through_is_withheld(value: Json, error: str) -> None:
    done = SCRUBBER.scrub(value)
    assert done.value == _stub(error)
    assert done.block.status == "failed"


def test_the_deepest_allowed_value_is_scrubbed() -> None:
    done = SCRUBBER.scrub(_nested(64))
    assert done.block.status == "ok"
    assert _gone(made("github-token"), done.value)


def test_the_block_says_what_was_done_and_nothing_of_what_was_found() -> None:
    block = SCRUBBER.scrub({"a": made("stripe"), "b": "PASSWORD=hunter22"}).block
    assert (block.engine, block.policy, block.mode) == ("secrets/1", "secrets-only/1", "audit")
    assert block.rules == default_rules().digest
    assert block.rules.startswith("sha256:")
    assert dict(block.counts) == {"secret": 2}


def test_tokens_longer_than_the_longest_are_data_by_decision() -> None:
    blob = filled("{a600}", 1)
    assert len(blob) > token_entropy.LONGEST
    assert SCRUBBER.scrub_text(blob) == blob


HOSTILE = """
import sys
from app.privacy.scrubber import Scrubber
seeds = ["1-", "a.", "1.", "eyJ", "sk-", "password=", "password: ", "-----BEGIN ", "://a:", "a@",
         "=", '"', chr(92),
         "aB3/", "[SECRET:x]", "Bearer ", "cookie: a=b ", "--token ",
         "password is ",
         "-----BEGIN CERTIFICATE-----aB3dE6gH9jK2mN5pQ8sT-----END ", "aB3dE6gH9jK2mN5pQ8sT ", "A",
         "host=a ", "curl ", "[", '{"a":', "https://", "\\u00e9", "AKIA", "PASSWORD=hunter22 "]
own = Scrubber(["mfk_Own-Key_0123456789abcdefghij"])
for seed in seeds:
    text = (seed * (2 ** 20 // len(seed) + 1))[: 2 ** 20]
    done = own.scrub({"a": text})
    assert done.block.status in ("ok", "failed")
    print(repr(seed)[:30], done.block.status, flush=True)
print("all", len(seeds))
"""


def test_hostile_megabytes_all_come_to_an_end() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "all 30"
