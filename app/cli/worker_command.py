"""`meshflow worker`: drives runs of the queue, and serves nobody.

Threat: Ledger tampering
"""

import asyncio
import logging
import signal
import socket
from argparse import Namespace

from app.cli.database_setup import serving_database
from app.cli.invocation import OK, Invocation
from app.cli.listening import metrics_listener, tell_metrics_url
from app.cli.serve import configure_logging
from app.settings import Settings

_log = logging.getLogger("meshflow")


def worker(invocation: Invocation, _arguments: Namespace) -> int:
    """Drive runs until SIGTERM or Ctrl-C; then they have a while to end, or go on elsewhere."""
    from app import roster

    settings = invocation.settings(dev=True)
    configure_logging(settings)
    roster.tools(settings)  # refused here in one sentence, before a database is started
    with metrics_listener(settings.operations) as metrics, serving_database(settings) as ready:
        tell_metrics_url(metrics, settings.operations)
        asyncio.run(_work(ready, metrics))
    return OK


async def _work(ready: Settings, metrics: socket.socket | None) -> None:
    from app.main import work

    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, told.set)
    _log.info("driving runs, up to %d at a time", ready.max_concurrent_runs)
    await work(ready, told, metrics=metrics)
