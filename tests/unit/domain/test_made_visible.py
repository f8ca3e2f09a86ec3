"""What a reader does not see is taken out; what belongs to a visible sign stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.made_visible import made_visible
from app.domain.visible_text import is_hidden


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "naïve 東京 ½",
        "family 👨‍👩‍👧 rainbow 🏳️‍🌈 heart ❤️ key 1️⃣ nurse 👩🏽‍⚕️",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland
        "می‌خواهم",  # Persian is written with a non-joiner
        "क्‍ष",
    ],
)
def test_visible_signs_stay(text: str) -> None:
    assert made_visible(text) == text


@pytest.mark.parametrize(
    "hidden",
    [
        *("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e", "\u2066", "\u2069"),
        *(
            "\u034f",
            "\u115f",
            "\u3164",
            "\ufe00",
            "\ufe0f",
            "\U000e0041",
            "\U000e0101",
            "\ue000",
            "\x00",
        ),
        "\U000e0067\U000e0062\U000e0078\U000e007f",
    ],
)
def test_what_shows_nothing_goes(hidden: str) -> None:
    assert made_visible(f"pay{hidden}ment") == "payment"


def test_tags_behind_a_flag_spell_a_flag_and_nothing_else() -> None:
    spelled = "".join(chr(0xE0000 + ord(letter)) for letter in "steal")
    assert made_visible(f"\U0001f3f4{spelled}\U000e007f") == "\U0001f3f4"


@given(st.text(max_size=80))
def test_it_settles_and_only_takes_away(text: str) -> None:
    made = made_visible(text)
    assert made_visible(made) == made
    kept = iter(text)
    assert all(char in kept for char in made)
    assert all(
        not is_hidden(char)
        for char in made
        if char not in "\u200c\u200d"
        and ord(char) < 0xE0000
        and not 0x1F000 <= ord(char) <= 0x1FAFF
        and not 0x203C <= ord(char) <= 0x3299
    )
