"""A worker as a process of its own, whose model parks every run until somebody has decided.

It finds the names of a deployment in its environment. In the directory PARKING_DIR each call of the
model is a line of `asked`; while `hold` is there it waits, and once `decided` is there it answers
instead of parking.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.domain.errors import RunParkedError
from app.domain.run import Usage
from app.domain.step import ModelReply, StopReason
from app.domain.verdict import ClearedRequest
from app.main import work
from app.settings import Settings
from app.wiring import Overrides

PLACE = "PARKING_DIR"
ANSWER = "It is decided."
_PATIENCE_SECONDS = 60


class Parking:
    """The provider `scripted`, as it is here."""

    name = "scripted"

    def __init__(self, place: Path) -> None:
        self._place = place

    async def complete(self, _: ClearedRequest) -> ModelReply:
        with (self._place / "asked").open("a", encoding="ascii") as asked:
            asked.write("asked\n")
        while (self._place / "hold").exists():  # noqa: ASYNC110 - another process removes it
            await asyncio.sleep(0.01)
        if not (self._place / "decided").exists():
            raise RunParkedError("nobody has decided")
        usage = Usage(input_tokens=1, output_tokens=1)
        return ModelReply(text=ANSWER, calls=(), stop_reason=StopReason.END, usage=usage)

    async def warm_up(self) -> None:
        """Nothing to pay."""

    async def close(self) -> None:
        """Nothing is open."""


async def _main() -> None:
    names = {name: value for name, value in os.environ.items() if name.startswith("MESHFLOW_")}  # noqa: TID251 - the process is told by its environment
    place = Path(os.environ[PLACE])  # noqa: TID251 - as above
    settings = Settings.from_environ(names, uid=os.geteuid(), home=place)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    overrides = Overrides(providers={"scripted": Parking(place)}, default_model="scripted")
    await work(settings, told, overrides)


@contextmanager
def parking_worker(
    environ: Mapping[str, str], place: Path, log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Such a process, until the block ends."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.support.parking_worker"],
            env={**environ, PLACE: str(place), "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(_PATIENCE_SECONDS)


if __name__ == "__main__":
    asyncio.run(_main())
