"""The trust policy: the rules of the specification hold, and no file says less than it seems to.

Threat: Ledger tampering
"""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.transparency.note import COSIGNATURE, ED25519, SignerKey, verifier_key
from app.transparency.witness_policy import (
    MAX_POLICY_BYTES,
    WitnessPolicy,
    WitnessPolicyError,
    parse_policy,
)

BOUNDED = settings(max_examples=80, deadline=None, database=None)


def vkey(letter: str, algorithm: int, name: str | None = None) -> str:
    seed = letter.encode() * 32
    signer = SignerKey(name=name or f"{letter}.example", algorithm=algorithm, seed=seed)
    return signer.verifier.encode()


L1, L2 = vkey("l", ED25519), vkey("m", ED25519)
X1, X2, X3 = (vkey(letter, COSIGNATURE) for letter in "abc")
Y1, Y2, Y3 = (vkey(letter, COSIGNATURE) for letter in "def")
E1, E2, F1 = vkey("p", ED25519), vkey("q", ED25519), vkey("r", ED25519)

SPEC = f"""log {L1}

witness X1 {X1}
witness X2 {X2}
witness X3 {X3}
group X-witnesses 2 X1 X2 X3

witness Y1 {Y1}
witness Y2 {Y2}
witness Y3 {Y3}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""
ALL = {"X1", "X2", "X3", "Y1", "Y2", "Y3"}


def policy(text: str) -> WitnessPolicy:
    return parse_policy(text.encode("utf-8", "surrogateescape"))


def test_the_example_of_the_specification_asks_for_two_and_one() -> None:
    parsed = policy(SPEC)
    assert [log.key.encode() for log in parsed.logs] == [L1]
    assert [witness.name for witness in parsed.witnesses] == sorted(ALL)
    assert parsed.quorum == "X-and-Y"
    for count in range(len(ALL) + 1):
        for cosigners in combinations(sorted(ALL), count):
            x = sum(name.startswith("X") for name in cosigners)
            y = len(cosigners) - x
            assert parsed.satisfied(cosigners) is (x >= 2 and y >= 1), cosigners


def test_only_a_witness_counts_and_only_once() -> None:
    parsed = policy(SPEC)
    assert not parsed.satisfied(["X-and-Y"])
    assert not parsed.satisfied(["X-witnesses", "Y-witnesses"])
    assert not parsed.satisfied(["X1", "X1", "Y1", "Y1"])
    assert not parsed.satisfied(["X1", "Y1", "none", "a.example", "stranger", ""])
    assert not parsed.satisfied(["x1", "x2", "y1"])
    assert parsed.satisfied(["X1", "X2", "Y3", "stranger"])


def test_a_quorum_of_none_asks_for_nobody_and_no_other_name_does() -> None:
    assert policy("quorum none\n").satisfied([])
    assert policy(f"log {L1}\nwitness W {X1}\nquorum none\n").satisfied([])
    one = policy(f"witness W {X1}\nquorum W\n")
    assert not one.satisfied([])
    assert not one.satisfied(["none"])
    assert one.satisfied(["W"])


def test_urls_comments_and_spaces_change_nothing() -> None:
    parsed = policy(
        f"# a comment\n\t # another\n \t \n\tlog\t{L1} \t https://log.example/ \n"
        f"  witness  W  {X1}  https://w.example/ü  \n# quorum none\n group G\t1 W\t\nquorum G\n"
    )
    assert parsed.logs[0].url == "https://log.example/"
    assert parsed.witnesses[0].url == "https://w.example/ü"
    assert policy(SPEC).logs[0].url is None
    assert not parsed.satisfied([])
    assert parsed.satisfied(["W"])


def test_the_order_of_logs_and_witnesses_is_free_and_the_quorum_need_not_be_last() -> None:
    parsed = policy(f"witness W {X1}\nquorum W\nlog {L2}\nwitness V {X2}\nlog {L1}\n")
    assert [log.key.encode() for log in parsed.logs] == [L2, L1]
    assert parsed.satisfied(["W"])
    assert not parsed.satisfied(["V"])


@pytest.mark.parametrize(
    ("threshold", "needed"), [("any", 1), ("all", 3), ("1", 1), ("2", 2), ("3", 3)]
)
def test_a_group_needs_as_many_as_it_says(threshold: str, needed: int) -> None:
    head = f"witness X1 {X1}\nwitness X2 {X2}\nwitness X3 {X3}\n"
    parsed = policy(f"{head}group G {threshold} X1 X2 X3\nquorum G\n")
    for count in range(4):
        for cosigners in combinations(["X1", "X2", "X3"], count):
            assert parsed.satisfied(cosigners) is (count >= needed)


def test_many_logs_witnesses_and_groups_are_no_trouble() -> None:
    lines = []
    for number in range(40):
        key = verifier_key(f"w{number}", COSIGNATURE, bytes([number + 2]) * 32).encode()
        log = verifier_key(f"l{number}", ED25519, bytes([number + 102]) * 32).encode()
        lines += [f"log {log}", f"witness w{number} {key}"]
        member = f"g{number - 1} " if number else ""
        lines.append(f"group g{number} all {member}w{number}")
    parsed = policy("\n".join([*lines, "quorum g39", ""]))
    names = [f"w{number}" for number in range(40)]
    assert parsed.satisfied(names)
    for missing in names:
        assert not parsed.satisfied(set(names) - {missing})


def test_names_are_octets() -> None:
    data = b"witness \xff\xfe %b\nwitness K %b\nwitness \xe2\x84\xaa %b\ngroup g all \xff\xfe K\n"
    parsed = parse_policy(data % (X1.encode(), X2.encode(), X3.encode()) + b"quorum g\n")
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert parsed.satisfied([raw, "K"])
    assert not parsed.satisfied([raw, "\N{KELVIN SIGN}"])


def test_a_name_may_hold_a_space_that_is_none_here() -> None:
    parsed = policy(f"witness a\u2003b\u0085c {X1}\nquorum a\u2003b\u0085c\n")
    assert parsed.satisfied(["a\u2003b\u0085c"])


W = f"witness W {X1}\nwitness V {X2}\n"
RENAMED = vkey("a", COSIGNATURE, "another.name")
RENAMED_LOG = vkey("l", ED25519, "another.name")
ML_DSA = "w+abcdef01+" + "Bg" + "A" * 1750


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "# quorum none\n",
        f"log {L1}\n",
        "quorum none",  # cut off
        f"{W}group G 2 W V\nquorum G",
        f"{W}quorum W\nquorum W\n",
        f"{W}quorum W\nquorum none\n",
        f"{W}quorum none\nquorum W\n",
        f"{W}quorum\n",
        f"{W}quorum W V\n",
        f"{W}quorum X\n",
        f"{W}quorum w\n",
        f"{W}Quorum W\n",
        f"{W}quorum W # with a comment\n",
        f"quorum W\n{W}",
        "quorum G\n" + W + "group G any W\n",
        f"{W}group G any W\nquorum H\n",
        f"{W}group G any W\ngroup G any V\nquorum G\n",
        f"{W}group W any V\nquorum W\n",
        f"{W}group none any V\nquorum none\n",
        f"{W}group G any none\nquorum G\n",
        f"{W}group G any G\nquorum G\n",
        f"{W}group G any H\ngroup H any W\nquorum G\n",
        f"{W}group G any X\nquorum G\n",
        f"{W}group G any\nquorum G\n",
        f"{W}group G\nquorum G\n",
        f"{W}group\nquorum W\n",
        f"{W}group G W V\nquorum G\n",
        f"{W}group G 0 W V\nquorum G\n",
        f"{W}group G 3 W V\nquorum G\n",
        f"{W}group G -1 W V\nquorum G\n",
        f"{W}group G +1 W V\nquorum G\n",
        f"{W}group G 01 W V\nquorum G\n",
        f"{W}group G 1.0 W V\nquorum G\n",
        f"{W}group G 0x1 W V\nquorum G\n",
        f"{W}group G \N{ARABIC-INDIC DIGIT ONE} W V\nquorum G\n",
        f"{W}group G {'9' * 5000} W V\nquorum G\n",
        f"{W}group G ANY W V\nquorum G\n",
        f"{W}group G 2 W W\nquorum G\n",
        f"{W}group G any W\ngroup H any W V\nquorum H\n",
        f"{W}group G any W\ngroup H any G\ngroup I any G V\nquorum I\n",
        f"{W}witness W {X3}\nquorum W\n",
        f"{W}witness U {X1}\nquorum W\n",
        f"{W}witness U {RENAMED}\nquorum W\n",
        f"witness none {X1}\nquorum none\n",
        "witness W\nquorum none\n",
        f"witness {X1}\nquorum none\n",
        f"witness W {X1} https://w more\nquorum W\n",
        f"witness W {X1[:-1]}\nquorum W\n",
        f"witness W {L1}\nquorum W\n",
        f"witness W {ML_DSA}\nquorum W\n",
        "log\nquorum none\n",
        f"log {X1}\nquorum none\n",
        f"log {L1} https://l more\nquorum none\n",
        f"log {L1}\nlog {L1}\nquorum none\n",
        f"log {L1}\nlog {RENAMED_LOG}\nquorum none\n",
        f"log {L1}{L2}\nquorum none\n",
        f"origin {L1}\nquorum none\n",
        "quorum none;\n",
        "\ufeffquorum none\n",
        f"{W}quorum\u00a0W\n",
        "quorum none\r\n",
        "quorum none\n\x00\n",
        "# \x1b[2K\nquorum none\n",
        "# \x7f\nquorum none\n",
        "# \x0b\nquorum none\n",
        "quorum none\x0c\n",
        "quorum none\n" + "#" * MAX_POLICY_BYTES + "\n",
    ],
)
def test_a_file_that_breaks_a_rule_is_no_policy(text: str) -> None:
    with pytest.raises(WitnessPolicyError):
        policy(text)


def test_the_line_that_breaks_a_rule_is_told() -> None:
    with pytest.raises(WitnessPolicyError, match="line 4: "):
        policy(f"{W}\nquorum X\n")


def test_octets_that_are_no_text_make_no_key() -> None:
    with pytest.raises(WitnessPolicyError):
        parse_policy(b"log \xff" + L1.encode() + b"\nquorum none\n")


OWN = f"""# a policy
#meshflow/v1 enrolment {E1}
 \t#meshflow/v1  enrolment\t{E2}
#meshflow/v1 erasure {F1}
# meshflow has lines of its own
#meshflows
quorum none
"""


def test_our_own_keys_stand_in_comments() -> None:
    parsed = policy(OWN)
    assert [key.encode() for key in parsed.enrolment_keys] == [E1, E2]
    assert [key.encode() for key in parsed.erasure_keys] == [F1]
    assert policy(SPEC).enrolment_keys == policy(SPEC).erasure_keys == ()


def test_our_own_keys_witness_and_log_nothing() -> None:
    parsed = policy(OWN + W.replace("none", "W"))
    assert parsed.logs == ()
    assert {witness.name for witness in parsed.witnesses} == {"W", "V"}


@pytest.mark.parametrize(
    "line",
    [
        "#meshflow/",
        "#meshflow/v1",
        "#meshflow/v1 enrolment",
        f"#meshflow/v1 {E1}",
        f"#meshflow/v1 enrolment {E1} more",
        f"#meshflow/v1 enrolment {E1}{E2}",
        f"#meshflow/v1 enrollment {E1}",
        f"#meshflow/v1 Erasure {E1}",
        f"#meshflow/v2 enrolment {E1}",
        f"#meshflow/v11 enrolment {E1}",
        f"#meshflow/v1enrolment {E1}",
        f"#meshflow/enrolment {E1}",
        f"\t #meshflow/v2 erasure {E1}",
        f"#meshflow/v1 enrolment {E1[:-1]}",
        f"#meshflow/v1 erasure {X1}",
        f"#meshflow/v1 enrolment {E1}\n#meshflow/v1 enrolment {E1}",
        f"#meshflow/v1 enrolment {E1}\n#meshflow/v1 enrolment {vkey('p', ED25519, 'other')}",
        f"#meshflow/v1 enrolment {E1}\n#meshflow/v1 erasure {vkey('p', ED25519, 'other')}",
        f"log {L1}\n#meshflow/v1 erasure {RENAMED_LOG}",
        f"#meshflow/v1 enrolment {vkey('a', ED25519)}\nwitness W {X1}",
    ],
)
def test_a_line_of_our_own_that_is_not_understood_is_no_comment(line: str) -> None:
    with pytest.raises(WitnessPolicyError):
        policy(f"{line}\nquorum none\n")


WORDS = st.sampled_from(
    [
        *["log", "witness", "group", "quorum", "none", "any", "all", "1", "2", "0", "W", "V", "G"],
        *["#", "#meshflow/v1", "enrolment", "erasure", L1, L2, X1, X2, E1, F1, "https://w", "\t"],
    ]
)


@given(lines=st.lists(st.lists(WORDS, max_size=5).map(" ".join), max_size=8))
@BOUNDED
def test_any_lines_are_a_policy_or_a_policy_error(lines: list[str]) -> None:
    try:
        parsed = policy("".join(line + "\n" for line in [*lines, f"witness Z {X3}", "quorum Z"]))
    except WitnessPolicyError:
        return
    assert not parsed.satisfied([])
    assert parsed.satisfied(["Z"])


@given(data=st.binary(max_size=200))
@BOUNDED
def test_any_bytes_are_a_policy_or_a_policy_error(data: bytes) -> None:
    try:
        parsed = parse_policy(data)
    except WitnessPolicyError:
        return
    assert parsed.quorum == "none"


def test_a_log_may_stand_there_under_further_origins_and_its_key_has_no_other_use() -> None:
    renamed = vkey("l", ED25519, "l.example/r1")
    parsed = policy(f"log {L1}\n#meshflow/v1 log {renamed}\nquorum none\n")
    assert [log.key.encode() for log in parsed.logs] == [L1, renamed]
    for use in ("enrolment", "erasure"):
        with pytest.raises(WitnessPolicyError):
            policy(f"#meshflow/v1 log {L1}\n#meshflow/v1 {use} {L1}\nquorum none\n")
