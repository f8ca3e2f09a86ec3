"""The words for what an agent says, asks for and gets back; every text knows its origin."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from app.domain.label import Label
from app.domain.run import Json, JsonObject, Usage


class Origin(StrEnum):
    """Who a text comes from. Only operator and caller text can carry authority."""

    OPERATOR = "operator"
    CALLER = "caller"
    DATA = "data"
    MODEL = "model"
    TOOL = "tool"


class Effect(StrEnum):
    """What a tool may change in the world."""

    NONE = "none"
    READ = "read"
    NETWORK = "network"  # fetches from outside, and so tells the outside something
    WRITE = "write"  # makes or changes things
    SEND = "send"  # says something to people
    PAY = "pay"
    DESTROY = "destroy"
    GRANT = "grant"  # gives others rights
    ACCOUNT = "account"  # credentials and settings of an account
    EXECUTE = "execute"


EFFECTFUL: frozenset[Effect] = frozenset(Effect) - {Effect.NONE, Effect.READ}
IN_FILES: frozenset[Effect] = frozenset({Effect.WRITE, Effect.EXECUTE})  # of the run


class Role(StrEnum):
    """What an argument is to the call, so that rules can ask where such a value came from."""

    RECIPIENT = "recipient"
    URL = "url"
    OBJECT = "object"
    CHOICE = "choice"
    SECRET = "secret"  # noqa: S105 - the word for an argument, not a secret
    ATTRIBUTE = "attribute"
    AMOUNT = "amount"
    CONTENT = "content"
    PATH = "path"
    COMMAND = "command"
    TIME = "time"
    OPTION = "option"
    QUERY = "query"


TOOL_NAME = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)


def tool_names(text: str) -> tuple[str, ...] | None:
    """The names in a comma-separated list, or None when one is not of the form."""
    names = tuple(name.strip() for name in text.split(","))
    return names if all(map(TOOL_NAME.fullmatch, names)) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldCondition:
    """A label holds only where this field of the same result is equal to that.

    `path` is a name beside the labelled field, or from the root when it begins with `/`.
    """

    path: str
    equals: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLabel:
    """The label of a part of a result, and of what kind the object is that it is the id of."""

    path: str  # a JSON pointer, `*` for any index or name
    label: Label
    when: FieldCondition | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """What a tool declares about itself. `parameters` is a closed JSON schema.

    `roles` says for each argument what it is to the call. `labels` says for each part of the
    result how far it is to be believed: the key "" is the whole text, a JSON pointer (RFC 6901,
    `*` for any index) a part of a result that is JSON. `free_text` names the arguments that are
    content and not names of anything: they are kept letter for letter, where every other text must
    be in the one form that the gate lets through. `needs` names what the machine must be able to
    confine. `max_calls` is for one run. `results` says of fields what `labels` cannot: conditions,
    and of what kind an object's id is. `asked_by` are words by which a person asks for this; where
    there are none they are derived. `creates` is the kind of object that a call makes,
    `object_kinds` of what kind the object is that an argument names.
    """

    name: str
    description: str
    effect: Effect
    parameters: JsonObject
    roles: Mapping[str, Role] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)
    results: tuple[ResultLabel, ...] = ()
    asked_by: tuple[str, ...] = ()
    creates: str | None = None
    object_kinds: Mapping[str, str] = field(default_factory=dict)
    free_text: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    argument_limit_bytes: int = 256 * 1024
    result_limit_bytes: int = 64 * 1024
    timeout_seconds: float = 10.0
    max_calls: int = 1000
    is_confined: bool = False  # what it changes stays in a place of the run's own
    is_idempotent: bool = False  # made again, the same call leaves the world as one call does
    engine: str | None = None  # the interpreter behind it; stands in the record of each result


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call as the model proposed it. Nothing in it is trusted."""

    call_id: str
    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What the model is told a call came to."""

    call_id: str
    name: str
    content: str
    is_error: bool = False
    engine: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMessage:
    """Plain text with its origin."""

    origin: Origin
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyMessage:
    """What the model said in one turn: text and proposed calls."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    origin: Origin = field(default=Origin.MODEL, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsMessage:
    """The results of the calls of the turn before, in the order of those calls."""

    results: tuple[ToolResult, ...]
    origin: Origin = field(default=Origin.TOOL, init=False)


Message: TypeAlias = TextMessage | ReplyMessage | ResultsMessage


class StopReason(StrEnum):
    """Why the model stopped talking."""

    END = "end"
    TOOL_USE = "tool_use"
    MAX_TOKENS = "max_tokens"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One call of a model. `system` is operator text; `tools` are those the run may be offered."""

    model: str
    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    max_output_tokens: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """What came back, whole. A reply that was cut off is an error, never one of these."""

    text: str
    calls: tuple[ToolCall, ...]
    stop_reason: StopReason
    usage: Usage
