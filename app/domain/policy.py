"""Policies of a tenant as they are kept: versions, activations, and their public ids."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

ActivationId = NewType("ActivationId", UUID)
_ACTIVATION = re.compile(r"pol_[0-9a-f]{32}", re.ASCII)


class ActivationState(StrEnum):
    """What became of the wish that a version be in force."""

    PENDING = "pending"  # it loosens something, and no second key has confirmed it
    ACTIVE = "active"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One version of a policy, as stored. It never changes."""

    policy_id: str
    version: int
    digest: str
    body: bytes
    author: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """Somebody's wish that a version be in force, and what became of it."""

    activation_id: ActivationId
    policy_id: str
    version: int
    digest: str
    state: ActivationState
    needs_second: bool
    loosened: tuple[str, ...]
    requested_by: str
    requested_at: datetime
    confirmed_by: str | None
    activated_at: datetime | None


def public_activation_id(activation_id: ActivationId) -> str:
    """`pol_` and 32 lower-case hex digits."""
    return f"pol_{activation_id.hex}"


def parse_activation_id(text: str) -> ActivationId | None:
    """The id behind a public one, or None when it is not in the one accepted form."""
    return ActivationId(UUID(hex=text[4:])) if _ACTIVATION.fullmatch(text) else None
