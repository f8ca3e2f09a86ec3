"""What identifies a person is found in prose, speech and records; ordinary words stay."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.privacy.identifier_finder import Finding, Known, Mode, findings, merged


def told(text: str, mode: Mode = Mode.AUDIT, known: Known | None = None) -> list[tuple[str, str]]:
    raw = text.encode()
    return [(one.kind, raw[one.start : one.end].decode()) for one in findings(raw, mode, known)]


def values(text: str, mode: Mode = Mode.AUDIT) -> list[str]:
    return [value for _, value in told(text, mode)]


def test_a_visit_note_keeps_its_medicine_and_loses_its_patient() -> None:
    note = (
        "Patient Ruth Castellano (MRN 48210937), DOB 03/14/1962, was seen at Mercy Ridge Hospital"
        " by Dr. Patel on March 3, 2021. She lives at 12 Maple Grove Road, Springfield, IL 62704."
        " Phone (555) 123-4567. BP 120/80, HbA1c 7.2, metformin 500 mg."
    )
    assert values(note) == [
        "Ruth Castellano",
        "48210937",
        "03/14/1962",
        "Mercy Ridge Hospital",
        "Patel",
        "March 3, 2021",
        "12 Maple Grove Road",
        "Springfield",
        "62704",
        "(555) 123-4567",
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Smith, John A. was admitted.", ["Smith, John A"]),
        ("Ms. Xiomara Jenkins-Okafor, RN reviewed it.", ["Xiomara Jenkins-Okafor"]),
        ("Her son Tyree and daughter Aaliyah came.", ["Tyree", "Aaliyah"]),
        ("Sincerely, Emily Rose Carter", ["Emily Rose Carter"]),
        ("Paciente: José García López", ["José García López"]),
        ("The applicant, Mr Öztürk, left.", ["Öztürk"]),
        ("Wojciech reports no pain.", ["Wojciech"]),
        ("my name is john smith and so on", ["john smith"]),
        ("hi martha , how are you ? i'm doctor nguyen .", ["martha", "nguyen"]),
        ("your husband carlos said so", ["carlos"]),
        ("Seen by Dr. Lindqvist. Later lindqvist called again.", ["Lindqvist", "lindqvist"]),
    ],
)
def test_names_are_found_as_people_write_and_say_them(text: str, names: list[str]) -> None:
    assert [value for kind, value in told(text) if kind == "NAME"] == names


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    "text",
    [
        "Chief Complaint: Chest Pain. Assessment and Plan: continue lisinopril 10 mg daily.",
        "BP 120/80, HbA1c 7.2, COVID-19 negative. Foley catheter placed. Parkinson's disease.",
        "What is the recommended dose of metformin for a 45-year-old with type 2 diabetes?",
        "Thank you for your Order. Monday Morning Meeting: Review Budget.",
        "ICD-10 E11.9, CPT 99213; 0.5 mg q6h x 10 days, 3/4 of tablets, 5/10 pain, in 2019",
        "def total(items): return sum(i.price for i in items)",
        "",
    ],
)
def test_what_identifies_nobody_is_left_alone(text: str, mode: Mode) -> None:
    assert told(text, mode) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("write to ann&#64;clinic.example", "ann&#64;clinic.example"),
        ("SSN \uff11\uff12\uff13-45-6789 is hers", "\uff11\uff12\uff13-45-6789"),
        ("number 1\u200b23-45-6789.", "1\u200b23-45-6789"),
    ],
)
def test_a_disguise_goes_with_its_value(text: str, value: str) -> None:
    assert values(text) == [value]


def test_the_model_keeps_more_than_the_ledger() -> None:
    text = "She works at Brightwater Logistics, tag 48210937."
    assert values(text, Mode.AUDIT) == ["Brightwater Logistics", "48210937"]
    assert values(text, Mode.LLM) == []


def test_what_is_known_beforehand_is_found_everywhere() -> None:
    known = Known().with_found([("NAME", "Quillon Vashti"), ("MRN", "zz-top-9")])
    assert told("quillon came with ZZ-TOP-9", known=known) == [
        ("NAME", "quillon"),
        ("MRN", "ZZ-TOP-9"),
    ]


def test_overlaps_are_one_finding_of_the_longer_kind() -> None:
    made = merged([Finding(0, 4, "ID"), Finding(2, 12, "NAME"), Finding(20, 22, "AGE")])
    assert made == [Finding(0, 12, "NAME"), Finding(20, 22, "AGE")]


@given(st.text(max_size=200), st.sampled_from(list(Mode)))
def test_it_never_raises_and_findings_stand_in_order_in_the_text(text: str, mode: Mode) -> None:
    raw = text.encode("utf-8", "replace")
    found = findings(raw, mode)
    assert all(0 <= one.start < one.end <= len(raw) for one in found)
    assert all(one.end <= two.start for one, two in pairwise(found))
