"""What somebody with authority lets a run use, and what is left where several say so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

Names = frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one level declares. None: this level says nothing of it, and takes nothing away.

    A recipient may be `@host`, for everybody there; a domain covers itself, and `*.host` all that
    is below it; a path covers itself and what is under it. `max_amount` is for a whole run.
    """

    tools: Names = None
    recipients: Names = None
    domains: Names = None
    paths: Names = None
    max_amount: Decimal | None = None
    max_calls: Mapping[str, int] = field(default_factory=dict)
    readers: Names = None

    def meet(self, other: "Capabilities") -> "Capabilities":
        """What both allow: never more than either."""
        return Capabilities(
            tools=_both(self.tools, other.tools),
            recipients=_common(self.recipients, other.recipients, covers_recipient),
            domains=_common(self.domains, other.domains, covers_domain),
            paths=_common(self.paths, other.paths, covers_path),
            max_amount=_least(self.max_amount, other.max_amount),
            max_calls={
                tool: min(said[tool] for said in (self.max_calls, other.max_calls) if tool in said)
                for tool in sorted({*self.max_calls, *other.max_calls})
            },
            readers=_both(self.readers, other.readers),
        )


UNDECLARED = Capabilities()


def covers_recipient(declared: str, recipient: str) -> bool:
    """Whether a declared recipient is this one, or the host it is at."""
    if declared.startswith("@") and declared.count("@") == 1:
        return recipient == declared or recipient.rpartition("@")[1:] == ("@", declared[1:])
    return declared == recipient


def covers_domain(declared: str, domain: str) -> bool:
    """Whether a declared domain is this one or stands above it."""
    if declared.startswith("*."):
        return domain == declared or domain.endswith(declared[1:])
    return declared == domain


def covers_path(declared: str, path: str) -> bool:
    """Whether a declared path is this one or a directory above it. `..` is under nothing."""
    if ".." in path.split("/"):
        return False
    return path == declared or path.startswith(declared.rstrip("/") + "/")


def _both(one: Names, other: Names) -> Names:
    if one is None:
        return other
    return one if other is None else one & other


def _common(one: Names, other: Names, covers: Callable[[str, str], bool]) -> Names:
    """The narrower of each pair of which one covers the other."""
    if one is None:
        return other
    if other is None:
        return one
    narrow = {name for name in one if any(covers(wide, name) for wide in other)}
    return frozenset(narrow | {name for name in other if any(covers(wide, name) for wide in one)})


def _least(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    said = [amount for amount in (one, other) if amount is not None]
    return min(said, default=None)
