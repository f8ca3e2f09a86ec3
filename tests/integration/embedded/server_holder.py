"""Holds an embedded server for a test: tells of it in one JSON line, lets go when stdin ends."""

import json
import sys
from pathlib import Path

from app.domain.errors import ConfigurationError
from app.embedded.postgres_server import start_embedded_postgres


def main() -> None:
    try:
        held = start_embedded_postgres(Path(sys.argv[1]), durable=sys.argv[2] == "durable")
    except ConfigurationError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return
    told = {
        "app_url": held.app_url,
        "owner_url": held.owner_url,
        "socket_dir": str(held.socket_dir),
        "data_dir": str(held.data_dir),
        "server_pid": str(held.server_pid),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    held.stop()


if __name__ == "__main__":
    main()
