"""Which run: all that a contending process has to know of the scene."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRef:
    """One run of the scene; `open`: it has not ended and nobody goes on with it."""

    tenant: str
    log: str  # 32 hex
    run: str  # 32 hex
    open: bool = False
    fresh: bool = False  # no log holds any of it yet
    erased: str = ""  # anonymized: two fields are gone; deleted: everything is; both lawfully

    @property
    def ids(self) -> tuple[UUID, UUID]:
        """Log and run as SQL takes them."""
        return UUID(self.log), UUID(self.run)

    @property
    def public(self) -> str:
        """The id in URLs."""
        return f"run_{self.run}"
