"""`meshflow` on a machine whose clock is wrong by so many seconds: the first word says how many.

The machine's own clock is not ours to set, so the one function is replaced that the program takes
the time from, before anything else has taken it over.
"""

import sys
from datetime import UTC, datetime, timedelta

from app import ledger_assembly
from app.cli.entry import main

if __name__ == "__main__":
    away = timedelta(seconds=int(sys.argv[1]))
    ledger_assembly.utc_now = lambda: datetime.now(UTC) + away
    sys.exit(main(sys.argv[2:]))
