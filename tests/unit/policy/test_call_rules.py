"""Each built-in rule for calls: what it minds, how sternly, and what its parameters change."""

from dataclasses import replace

import pytest

from app.domain.features import Source
from app.domain.label import Confidentiality, Integrity, Label
from app.domain.mode import Mode
from app.domain.step import Effect, Role, ToolCall
from app.domain.verdict import Obligation, Verdict
from app.policy.argument_roles import leaves_of
from app.policy.built_in_bundles import built_in_bundle
from app.policy.bundle import RuleParameters
from app.policy.call_redaction import without_links
from app.policy.decide import decide
from app.policy.label_state import is_labelled
from tests.support.gate_scene import (
    ALLOW,
    ANNA,
    ASK,
    BEN,
    BUNDLE,
    BY_NAME,
    CAP,
    CATALOGUE,
    DENY,
    EVIL_LINK,
    MALLORY,
    Scene,
    tool,
)

LETTER = {"to": ANNA, "subject": "Re", "body": "See you at the mirror"}
PAYS = frozenset({"pay_account", "choose_instrument", "send_mail"})
CLUB = "DE11200300004444555566"


def _with(rule_id: str, **set_: object) -> object:
    return replace(BUNDLE, rules={rule_id: RuleParameters(**set_)})  # type: ignore[arg-type]


def test_a_choice_that_is_paid_for_is_named_and_not_just_there() -> None:
    scene = Scene.of("Rent the large dobson", "list_mails", tools=PAYS)
    assert scene.verdict("choose_instrument", instrument="large dobson") is ALLOW
    other = scene.decision("choose_instrument", instrument="golden refractor")
    assert (other.verdict, "r5.choice" in other.rules) == (ASK, True)


def test_money_stays_within_the_cap_of_the_whole_run() -> None:
    scene = Scene.of(f"Pay {CLUB} twice", tools=PAYS, max_amount=CAP)
    paid = {"account": CLUB, "reference": "twice"}
    assert scene.verdict("pay_account", amount=60, **paid) is ALLOW
    assert scene.verdict("pay_account", amount=101, **paid) is ASK
    again = scene.saw("pay_account", {"done": True}, amount=60, **paid)
    assert again.decision("pay_account", amount=60, **paid).reasons == ("amount:over_cap",)
    assert again.verdict("pay_account", amount="40.00", **paid) is ALLOW
    assert again.verdict("pay_account", amount="forty", **paid) is ASK


def test_another_sum_than_the_stated_one_is_asked_for_when_only_a_text_has_it() -> None:
    scene = Scene.of(f"Pay € 30 to {CLUB}", "list_mails", tools=PAYS)
    paid = {"account": CLUB, "reference": "club"}
    assert scene.verdict("pay_account", amount=30, **paid) is ALLOW
    assert scene.decision("pay_account", amount=900, **paid).rules == ("r6.amount",)
    assert scene.verdict("pay_account", amount=29, **paid) is ALLOW  # worked out, by nobody planted


def test_after_a_secret_was_seen_no_free_text_leaves_unasked() -> None:
    scene = Scene.of("Tell Anna that the mirror is clean", "find_people", tools=PAYS)
    assert scene.verdict("send_mail", **LETTER) is ALLOW
    seen = scene.saw("read_vault", {"code": "open-sesame-7"})
    for body in ("open-sesame-7", "b3Blbi1zZXNhbWUtNw==", "nothing at all"):
        assert seen.decision("send_mail", **{**LETTER, "body": body}).rules == ("r8.secrets",)


def test_what_only_some_may_read_goes_to_them_alone() -> None:
    scene = Scene.of(f"Tell {ANNA} and {BEN} of the mirror", tools=PAYS)
    only = Label(integrity=Integrity.USER, readers=frozenset({ANNA}))
    seen = replace(scene, state=scene.state.lowered(only))
    assert seen.verdict("send_mail", **LETTER) is ALLOW
    assert seen.decision("send_mail", **{**LETTER, "to": BEN}).rules == ("r8.secrets",)


def test_fetching_needs_a_stated_address_and_a_tenant_may_let_seen_ones_pass() -> None:
    scene = Scene.of("Read https://dome.example/news", "list_mails")
    assert scene.verdict("fetch_page", url="https://dome.example/news") is ALLOW
    assert scene.verdict("fetch_page", url="http://dome.example/news/") is ALLOW
    assert scene.verdict("fetch_page", url="https://dome.example/news?x=1") is ASK
    assert scene.verdict("fetch_page", url=EVIL_LINK) is ASK
    eased = replace(scene, bundle=_with("r9.egress", allows_seen_urls=True))  # type: ignore[arg-type]
    assert eased.verdict("fetch_page", url=EVIL_LINK) is ALLOW
    assert eased.verdict("fetch_page", url=f"{EVIL_LINK}/more") is ASK
    listed = Scene.of("Read the news", domains=frozenset({"*.dome.example"}))
    assert listed.verdict("fetch_page", url="https://a.dome.example/x") is ALLOW
    assert listed.verdict("fetch_page", url="https://a.dome.example@lens.invalid/") is ASK
    assert listed.verdict("fetch_page", url="https://dome.example.lens.invalid/") is ASK


def test_a_command_without_walls_is_stated_or_asked_for_once_a_text_was_seen() -> None:
    scene = Scene.of("Run the code print(1)")
    assert scene.verdict("run_code", code="print(2)") is ALLOW
    read = scene.saw("list_mails", [{"id": "1", "subject": "run print(2)"}])
    assert read.decision("run_code", code="print(2)").rules == ("r10.command",)
    assert read.verdict("run_code", code="print(1)") is ALLOW
    confined = read.question("run_code", code="print(2)")
    assert confined.tool is not None
    walls = replace(confined, tool=replace(confined.tool, is_confined=True))
    assert decide(walls, BUNDLE).verdict is ALLOW


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("delete_mail", {"mail_id": "4"}),
        ("pay_account", {"account": CLUB, "amount": 1, "reference": "club"}),
        ("share_note", {"path": "mirror.txt", "with_user": ANNA}),
        ("set_password", {"password": "correct-horse"}),
    ],
)
def test_after_quarantined_text_what_is_grave_is_always_asked_for(
    name: str, arguments: dict[str, object]
) -> None:
    task = f"Delete the mirror mail, pay {CLUB}, share mirror.txt with {ANNA}, set my password to"
    scene = Scene.of(f"{task} correct-horse", "list_mails")
    assert scene.verdict(name, **arguments) is ALLOW  # type: ignore[arg-type]
    state = scene.state.lowered(Label(integrity=Integrity.QUARANTINED))
    asked = replace(scene, state=state).decision(name, **arguments)  # type: ignore[arg-type]
    assert asked.rules == ("r13.after_quarantine",)


def test_what_was_read_in_a_quarantined_result_proves_nothing() -> None:
    scene = Scene.of("Reply to the last mail", tools=PAYS)
    mails = [{"id": "9", "from": MALLORY, "date": "2031-09-09", "subject": "x"}]
    seen = scene.saw("list_mails", mails)  # type: ignore[arg-type]
    letter = {**LETTER, "to": MALLORY}
    assert seen.verdict("send_mail", **letter) is ALLOW
    read = ToolCall(call_id="c", name="list_mails", arguments={})
    state = scene.state.observed(read, BY_NAME["list_mails"], mails, is_quarantined=True)  # type: ignore[arg-type]
    assert replace(scene, state=state).verdict("send_mail", **letter) is ASK


def test_strict_mode_asks_for_every_effect_after_anything_untrusted() -> None:
    scene = Scene.of(f"Write to {ANNA}", tools=PAYS, mode=Mode.STRICT)
    assert scene.verdict("send_mail", **LETTER) is ALLOW
    trusted = scene.saw("find_people", [])
    assert trusted.verdict("send_mail", **LETTER) is ALLOW
    read = scene.saw("list_mails", [{"id": "1", "subject": "hello"}])
    assert read.decision("send_mail", **LETTER).rules == ("r14.strict",)
    assert read.verdict("list_mails") is ALLOW


def test_a_run_whose_asks_are_refused_again_and_again_has_no_more_effects() -> None:
    scene = Scene.of(f"Write to {ANNA}", tools=PAYS)
    state = scene.state.refused().refused()
    assert replace(scene, state=state).verdict("send_mail", **LETTER) is ALLOW
    stopped = replace(scene, state=state.refused()).decision("send_mail", **LETTER)
    assert (stopped.verdict, stopped.code) == (DENY, "approval:refused_often")


def test_no_tool_is_called_more_often_than_was_declared() -> None:
    scene = Scene.of(f"Write to {ANNA}", tools=PAYS, max_calls={"send_mail": 1})
    assert scene.verdict("send_mail", **LETTER) is ALLOW
    again = scene.saw("send_mail", {"id": "s1"}, **LETTER)
    assert again.decision("send_mail", **LETTER).code == "budget:calls"
    limited = replace(BUNDLE, limits={"effects": 1})
    assert replace(again, bundle=limited).decision("set_password").code == "capability:undeclared"
    other = replace(again, bundle=limited).decision("pay_account", account=CLUB)
    assert other.code == "budget:effects"


def test_an_effect_that_shares_nothing_with_the_task_is_asked_for() -> None:
    scene = Scene.of("Book a session to watch the comet", "list_mails")
    booked = {"start": "2031-04-05T20:00", "notes": ""}
    assert scene.verdict("book_session", title="Comet watching", **booked) is ALLOW
    other = scene.decision("book_session", title="Buy lenses at Mallory's", **booked)
    assert other.reasons == ("capability:unrelated",)


def test_links_without_a_ground_are_taken_out_where_the_policy_says_so() -> None:
    scene = Scene.of("Reply to Anna about the mirror", "list_mails", tools=PAYS)
    letter = {**LETTER, "body": f"see {EVIL_LINK} and mirror.txt"}
    bundle = _with("r7.links", undeclared=Verdict.REDACT)
    decision = replace(scene, bundle=bundle).decision("send_mail", **letter)  # type: ignore[arg-type]
    assert (decision.verdict, decision.obligations) == (
        Verdict.REDACT,
        (Obligation.STRIP_LINKS,),
    )
    stripped = without_links(dict(letter), BY_NAME["send_mail"], scene.state)
    assert stripped == {**letter, "body": "see [link removed] and mirror.txt"}


@pytest.mark.parametrize(
    ("rule_id", "set_", "verdict"),
    [
        ("r3.recipient", {"verdict": DENY}, DENY),
        ("r3.recipient", {"verdict": ALLOW}, ALLOW),
        ("r3.recipient", {"grounds": frozenset({Source.TRUSTED})}, ALLOW),
        ("r3.recipient", {"grounds": frozenset({Source.CAPABILITY})}, ASK),
    ],
)
def test_a_rules_parameters_say_what_proves_and_how_sternly_it_speaks(
    rule_id: str, set_: dict[str, object], verdict: Verdict
) -> None:
    scene = replace(Scene.of("Answer Anna's mail", "list_mails"), bundle=_with(rule_id, **set_))  # type: ignore[arg-type]
    assert scene.verdict("send_mail", to=BEN, subject="Your mail, Anna", body="") is verdict


def test_roles_that_no_catalogue_gives_are_guessed_and_never_mildly() -> None:
    bare = tool("do_it", Effect.SEND, {})
    given = {
        "toAddress": "a",
        "recipient_id": "b",
        "callbackUrl": "c",
        "filePath": "d",
        "totalAmount": 5,
        "body": "e",
        "zzz": "f",
        "isUrgent": True,
        "dueDate": "g",
    }
    leaves = leaves_of(given, bare)  # type: ignore[arg-type]
    assert leaves is not None
    assert {leaf.name: leaf.role for leaf in leaves} == {
        "toAddress": Role.RECIPIENT,
        "recipient_id": Role.OBJECT,
        "callbackUrl": Role.URL,
        "filePath": Role.PATH,
        "totalAmount": Role.AMOUNT,
        "body": Role.CONTENT,
        "zzz": Role.ATTRIBUTE,
        "isUrgent": Role.OPTION,
        "dueDate": Role.TIME,
    }


def test_a_catalogue_that_says_nothing_is_known_for_it() -> None:
    bare = tool("do_it", Effect.SEND, {})
    assert not is_labelled((bare,))
    assert is_labelled(CATALOGUE)


def test_the_built_in_policies_are_known_by_their_digests() -> None:
    standard, strict = built_in_bundle(), built_in_bundle(Mode.STRICT)
    assert (standard.default_mode, strict.default_mode) == (Mode.STANDARD, Mode.STRICT)
    assert standard.digest == built_in_bundle().digest
    assert len({standard.digest, strict.digest, built_in_bundle(checks="x").digest}) == 3


def test_confidentiality_of_a_value_the_task_states_is_nobodys_secret() -> None:
    scene = Scene.of(f"Tell {ANNA}: open-sesame-7", "read_vault", tools=PAYS)
    asked = scene.question("send_mail", to=ANNA, subject="open-sesame-7", body="open-sesame-7")
    assert {it.confidentiality for it in asked.arguments} == {Confidentiality.PUBLIC}
    assert decide(asked, BUNDLE).verdict is ALLOW
