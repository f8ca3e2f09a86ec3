"""Each rule of the data file finds what it says and spares what it says."""

import pytest

from app.privacy.identifier_checks import is_code, is_dea, is_iban, is_luhn, is_street, is_vin
from app.privacy.identifier_finder import places
from app.privacy.identifier_rules import IdentifierRule, identifier_digest, identifier_rules


def found(rule: IdentifierRule, text: str) -> list[str]:
    raw = text.encode()
    return [raw[start:end].decode() for start, end in places(rule, raw)]


@pytest.mark.parametrize("rule", identifier_rules(), ids=lambda rule: rule.rule_id)
def test_each_rule_finds_and_spares_what_it_says(rule: IdentifierRule) -> None:
    for example in rule.finds:
        marked = [part.split("»")[0] for part in example.split("«")[1:]]
        assert marked, example
        assert found(rule, example.replace("«", "").replace("»", "")) == marked, example
    for example in rule.spares:
        assert found(rule, example) == [], example


def test_rules_have_names_of_their_own_and_one_digest() -> None:
    names = [rule.rule_id for rule in identifier_rules()]
    assert len(set(names)) == len(names)
    assert identifier_digest().startswith("sha256:")


def test_check_digits_tell_a_value_from_its_neighbour() -> None:
    assert is_luhn("4111 1111 1111 1111")
    assert not is_luhn("4111 1111 1111 1112")
    assert is_iban("GB29NWBK60161331926819")
    assert not is_iban("GB29NWBK60161331926818")
    assert is_vin("1HGCM82633A004352")
    assert not is_vin("1HGCM82633A004353")
    assert is_dea("AB1234563")
    assert not is_dea("AB1234564")
    assert is_code("AB-2291-77")
    assert not is_code("1990-2005")
    assert not is_code("COVID-2019")
    assert is_street("12 Maple Grove Road")
    assert not is_street("5 mg by the way")
