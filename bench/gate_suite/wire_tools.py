"""A catalogue in the wire form of `POST /v1/gate/contexts`, as the policy room knows it."""

from collections.abc import Mapping
from typing import Any

from app.domain.label import Confidentiality, Integrity, Label
from app.domain.step import Effect, FieldCondition, ResultLabel, Role, ToolSpec


def tool_spec(wire: Mapping[str, Any]) -> ToolSpec:
    """One tool. What the author does not say is left to the gate."""
    return ToolSpec(
        name=wire["name"],
        description=wire["description"],
        effect=Effect(wire["effect"]),
        parameters=wire["parameters"],
        roles={name: Role(role) for name, role in wire.get("roles", {}).items()},
        results=tuple(_label(row) for row in wire.get("results", [])),
        asked_by=tuple(wire.get("asked_by", ())),
        creates=wire.get("creates"),
        object_kinds=wire.get("object_kinds", {}),
        free_text=frozenset(
            name for name, role in wire.get("roles", {}).items() if role == Role.CONTENT
        ),
    )


def _label(row: Mapping[str, Any]) -> ResultLabel:
    when, readers = row.get("when"), row.get("readers")
    return ResultLabel(
        path=row["path"],
        label=Label(
            integrity=Integrity(row["integrity"]),
            confidentiality=Confidentiality(row.get("confidentiality", "tenant")),
            readers=None if readers is None else frozenset(readers),
        ),
        when=None if when is None else FieldCondition(path=when["path"], equals=when["equals"]),
        kind=row.get("kind"),
    )
