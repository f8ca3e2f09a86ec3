"""Opens the anchors that the settings name: witnesses, and the append-only file."""

from dataclasses import dataclass

from app.sequencing.anchor_file import AnchorFile
from app.sequencing.anchoring import Anchor
from app.sequencing.witness_roster import WitnessRoster, load_witnesses
from app.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """The places outside the database, and what has to be closed after them."""

    places: tuple[Anchor, ...]
    roster: WitnessRoster | None

    async def close(self) -> None:
        """End the sessions with witnesses."""
        if self.roster is not None:
            await self.roster.close()


def open_anchors(settings: Settings) -> Anchors:
    """The anchors that these settings name. ConfigurationError."""
    roster = None if settings.witnesses is None else load_witnesses(settings.witnesses)
    places: list[Anchor] = [] if roster is None else [*roster.anchors]
    if settings.anchor_file is not None:
        places.append(AnchorFile(settings.anchor_file))
    return Anchors(places=tuple(places), roster=roster)
