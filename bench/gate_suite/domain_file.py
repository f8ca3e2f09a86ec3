"""Reads a domain of the suite: its tools, its world, its tasks and what attackers want there.

A domain is one TOML file. Tools are written short and read into the wire form of
`POST /v1/gate/contexts`: `takes` becomes a closed JSON schema ("string", "number?", "string[]",
"open|shut"), each line of `results` one label ("/*/from tool", "/*/id tool kind=message").
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOMAINS = Path(__file__).parent / "domains"
HELD_OUT = "held_out"
HARMLESS = frozenset({"none", "read"})
_INTEGRITY = frozenset({"operator", "user", "tool", "untrusted", "quarantined"})
_CONFIDENTIALITY = frozenset({"public", "tenant", "secret"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What is told to the gate, and what the call does to the world."""

    name: str
    wire: dict[str, Any]
    does: Mapping[str, Any]

    @property
    def effectful(self) -> bool:
        """Whether a call leaves a trace outside."""
        return self.wire["effect"] not in HARMLESS

    def unlabelled(self) -> dict[str, Any]:
        """The tool as an author tells it who has never heard of labels."""
        return {key: self.wire[key] for key in ("name", "description", "effect", "parameters")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call, its arguments templates over earlier results."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a person asks for, the path of a good agent, and how one sees that it was done."""

    name: str
    instructions: str
    path: tuple[Step, ...]
    output: str
    reaches: tuple[Mapping[str, Any], ...]
    says: tuple[str, ...]
    data: tuple[Mapping[str, Any], ...]
    is_bare: bool
    is_by_reference: bool
    is_inherent: bool  # its only authority is a text that anybody may have written


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What an attacker wants: his words, the calls of a model that obeys, and the harm."""

    name: str
    kind: str
    words: str
    paraphrase: str
    calls: tuple[Step, ...]
    harm: tuple[Mapping[str, Any], ...]
    output: str
    leaks: str
    adds: Mapping[str, tuple[Mapping[str, Any], ...]]
    acts_at_the_end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A small place of work."""

    name: str
    told: str
    tools: Mapping[str, Tool]
    state: Mapping[str, list[dict[str, Any]]]
    slots: Mapping[str, tuple[str, ...]]
    tasks: tuple[Task, ...]
    goals: tuple[Goal, ...]


def own_domains() -> list[Domain]:
    """The domains that stood before the rules were finished, in the order of their names."""
    return [read(path) for path in sorted(DOMAINS.glob("*.toml")) if path.stem != HELD_OUT]


def held_out() -> Domain | None:
    """The domain that was written last, when there is one."""
    path = DOMAINS / f"{HELD_OUT}.toml"
    return read(path) if path.exists() else None


def read(path: Path) -> Domain:
    """One file; a key that nobody knows is an error, so that no line of it is without meaning."""
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    tools = [_tool(dict(row)) for row in told["tools"]]
    return Domain(
        name=told["name"],
        told=told["told"],
        tools={tool.name: tool for tool in tools},
        state=told["state"],
        slots={kind: tuple(fields) for kind, fields in told["slots"].items()},
        tasks=tuple(_task(dict(row)) for row in told["tasks"]),
        goals=tuple(_goal(dict(row)) for row in told["goals"]),
    )


def _tool(row: dict[str, Any]) -> Tool:
    does = row.pop("does")
    wire: dict[str, Any] = {
        "name": row.pop("name"),
        "description": row.pop("description"),
        "effect": row.pop("effect"),
        "parameters": _schema(row.pop("takes", {})),
        "roles": row.pop("roles", {}),
        "results": [_label(line) for line in row.pop("results", [])],
    }
    for optional in ("asked_by", "creates", "object_kinds"):
        if optional in row:
            wire[optional] = row.pop(optional)
    if row:
        raise ValueError(f"{wire['name']}: nobody knows {sorted(row)}")
    return Tool(name=wire["name"], wire=wire, does=does)


def _schema(takes: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _type(told.removesuffix("?")) for name, told in takes.items()},
        "required": [name for name, told in takes.items() if not told.endswith("?")],
        "additionalProperties": False,
    }


def _type(told: str) -> dict[str, Any]:
    if told.endswith("[]"):
        return {"type": "array", "items": _type(told.removesuffix("[]")), "maxItems": 50}
    if "|" in told:
        return {"type": "string", "enum": told.split("|")}
    if told == "string":
        return {"type": "string", "maxLength": 4000}
    return {"type": told}


def _label(line: str) -> dict[str, Any]:
    """`/*/iban tool secret kind=account when=/*/direction:out readers=a@x.example`."""
    path, *words = line.split()
    label: dict[str, Any] = {"path": path, "integrity": "untrusted"}
    for word in words:
        name, _, value = word.partition("=")
        if word in _INTEGRITY and word != "user":
            label["integrity"] = word
        elif word in _CONFIDENTIALITY or word == "private":
            label["confidentiality"] = "user" if word == "private" else word
        elif name == "kind":
            label["kind"] = value
        elif name == "readers":
            label["readers"] = value.split(",")
        elif name == "when":
            where, _, wanted = value.rpartition(":")
            label["when"] = {"path": where, "equals": wanted}
        else:
            raise ValueError(f"nobody knows {word!r} in {line!r}")
    return label


def _task(row: dict[str, Any]) -> Task:
    task = Task(
        name=row.pop("name"),
        instructions=row.pop("instructions"),
        path=_steps(row.pop("path")),
        output=row.pop("output", "Done."),
        reaches=tuple(row.pop("reaches", ())),
        says=tuple(row.pop("says", ())),
        data=tuple(row.pop("data", ())),
        is_bare=row.pop("bare", False),
        is_by_reference=row.pop("by_reference", False),
        is_inherent=row.pop("inherent", False),
    )
    if row or not (task.reaches or task.says):
        raise ValueError(f"{task.name}: nobody knows {sorted(row)}, or it has no end")
    return task


def _goal(row: dict[str, Any]) -> Goal:
    goal = Goal(
        name=row.pop("name"),
        kind=row.pop("kind"),
        words=row.pop("words"),
        paraphrase=row.pop("paraphrase"),
        calls=_steps(row.pop("calls", ())),
        harm=tuple(row.pop("harm", ())),
        output=row.pop("output", ""),
        leaks=row.pop("leaks", ""),
        adds={kind: tuple(objects) for kind, objects in row.pop("adds", {}).items()},
        acts_at_the_end=row.pop("acts_at_the_end", False),
    )
    if row or not (goal.harm or goal.leaks):
        raise ValueError(f"{goal.name}: nobody knows {sorted(row)}, or it does no harm")
    return goal


def _steps(rows: Any) -> tuple[Step, ...]:
    return tuple(Step(tool=row["tool"], arguments=row.get("with", {})) for row in rows)
