"""What a model is shown first: instructions as the caller's, data as data."""

from hypothesis import given
from hypothesis import strategies as st

from app.agents.prompts import opening_messages
from app.domain.run import DataPart
from app.domain.step import Origin, TextMessage
from tests.support.planted_rules import task_of


def shown(**changed: object) -> list[TextMessage]:
    messages = opening_messages(task_of(**changed))
    return [message for message in messages if isinstance(message, TextMessage)]


def test_instructions_come_first_and_are_the_callers() -> None:
    first, second = shown(data=(DataPart(content="a", source="mail"),))
    assert (first.origin, first.text) == (Origin.CALLER, "Write 42 to answer.txt")
    assert second.origin is Origin.DATA
    assert "from mail" in second.text


def test_a_part_without_a_source_is_named_as_the_callers_own() -> None:
    (only,) = shown(instructions=None, data=(DataPart(content="a"),))
    assert "from the caller" in only.text


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=5))
def test_data_is_never_shown_as_anything_but_data(contents: list[str]) -> None:
    parts = tuple(DataPart(content=content, source="operator") for content in contents)
    messages = shown(instructions=None, data=parts)
    assert [message.origin for message in messages] == [Origin.DATA] * len(parts)
    for part, message in zip(parts, messages, strict=True):
        assert part.content in message.text
        assert message.text.startswith("The following is material to work on.")
