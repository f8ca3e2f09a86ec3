"""A process that appends to a run which fifteen others append to; prints what was acknowledged."""

import asyncio
import sys
from uuid import UUID

from app.domain.errors import StaleEpochError
from app.domain.run import RunId
from tests.integration.storage.append_scene import scene_on
from tests.support.databases import Roles


async def main(url: str, run: str, key: str, times: int) -> None:
    """Append `times` records; a lost race is tried again from the new head."""
    roles = Roles(app=url, owner="", audit="", superuser="")
    async with scene_on(roles, pool_size=1) as scene:
        mine = scene.author(RunId(UUID(run)), bytes.fromhex(key))
        while times:
            mine.head = await scene.head(mine)
            batch = mine.seal()
            try:
                await scene.write(mine, batch)
            except StaleEpochError:
                continue
            times -= 1
            print(batch.records[0].chain.hex(), flush=True)  # what may be killed in between


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
