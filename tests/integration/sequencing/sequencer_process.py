"""A sequencer in a process of its own, to be killed: ticks without a pause, says that it began."""

import asyncio
import sys

from tests.integration.sequencing.log_scene import led
from tests.support.databases import Roles


async def main(app: str, sequencer: str) -> None:
    """Tick for ever; the one before may still hold its lock for a moment."""
    roles = Roles(app=app, owner="", audit="", superuser="", sequencer=sequencer)
    while True:
        try:
            async with led(roles) as (_, ticking):
                print("leads", flush=True)
                while True:
                    await ticking.tick()
        except AssertionError:
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
