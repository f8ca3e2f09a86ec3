"""What a caller may send to start a run: closed models, bounded fields, one full example."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

MAX_TEXT = 256 * 1024
_MAX_DEPTH = 16
_MAX_INTEGER = 2**53 - 1
_FIRST_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MOMENT = datetime(9999, 12, 30, tzinfo=UTC)


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a NUL character")
    return text


def _within_all_calendars(moment: datetime) -> datetime:
    if not _FIRST_MOMENT <= moment <= _LAST_MOMENT:
        raise ValueError("a time that no run can have")
    return moment.astimezone(UTC)


def _plain_json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _check_json(value, 1)
    return value


def _check_json(value: JsonValue, depth: int) -> None:
    """Bounded depth, finite numbers within 2^53, no NUL: what every reader agrees on."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        _no_nul(value)
    elif isinstance(value, int | float) and not abs(value) <= _MAX_INTEGER:
        # False for infinity and NaN too. Nothing here turns an endless integer into a float.
        raise ValueError("a number beyond 2^53-1")
    elif isinstance(value, dict):
        for key, item in value.items():
            _no_nul(key)
            _check_json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_json(item, depth + 1)


MomentIn = Annotated[AwareDatetime, AfterValidator(_within_all_calendars)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT), AfterValidator(_no_nul)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_no_nul)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,64}$")]
Count = Annotated[int, Field(ge=0, le=_MAX_INTEGER)]
Amount = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}(\.[0-9]{1,6})?$")]
Names = Annotated[list[ShortText], Field(max_length=256)] | None
JsonObjectIn = Annotated[dict[str, JsonValue], AfterValidator(_plain_json)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class DataPartIn(_Closed):
    """Material to work on. It grants no authority, whatever it says."""

    content: Text
    source: ShortText | None = None
    integrity: Literal["user", "tool", "untrusted", "quarantined"] | None = None
    confidentiality: Literal["public", "tenant", "user", "secret"] | None = None


class CapabilitiesIn(_Closed):
    """What the run may use at most; what is not named is bounded by nothing here.

    Named recipients, domains and paths are as good as if the instructions named them. Tools that
    are not among the named ones are denied.
    """

    tools: Annotated[list[Name], Field(max_length=64)] | None = None
    recipients: Names = None
    domains: Names = None
    paths: Names = None
    max_amount: Amount | None = None
    max_calls: Annotated[dict[Name, Count], Field(max_length=64)] = {}
    readers: Names = None


class BudgetIn(_Closed):
    """Limits of the run; each is cut to the tenant's."""

    max_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_cost_micros: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    max_wall_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None


class RunCreate(_Closed):
    """A task. Either `task` alone, or `instructions` and `data`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        json_schema_extra={
            "example": {
                "instructions": "Calculate 6*7 and write the result to answer.txt",
                "data": [{"content": "The answer is wanted by noon.", "source": "mail"}],
                "tools": ["calculator", "write_file"],
                "capabilities": {"tools": ["calculator", "write_file"]},
                "budget": {"max_steps": 10},
                "metadata": {"ticket": "T-1"},
            }
        },
    )

    task: Text | None = None
    instructions: Text | None = None
    data: Annotated[list[DataPartIn], Field(max_length=64)] = []
    agent: Name | None = None
    model: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")] | None = None
    tools: Annotated[list[Name], Field(max_length=64)] | None = None
    capabilities: CapabilitiesIn | None = None
    mode: Literal["observe", "standard", "strict"] | None = None
    policy: Name | None = None
    budget: BudgetIn | None = None
    output_schema: JsonObjectIn | None = None
    metadata: JsonObjectIn = {}

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "RunCreate":
        if self.task is not None and (self.instructions is not None or self.data):
            raise ValueError("task stands alone")
        if self.task is None and self.instructions is None and not self.data:
            raise ValueError("a task, instructions or data are needed")
        return self
