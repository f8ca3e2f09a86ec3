"""Started by path in a fresh interpreter: finds the package it lies in, then serves as a zygote.

`python -I -S -B zygote_entry.py <descriptor> <configuration>`: isolated, without site packages,
without bytecode, with an empty environment. The configuration holds no secret.
"""

import os
import sys
from pathlib import Path


def main() -> None:
    """Serve until the server is gone."""
    os.environ.clear()  # noqa: TID251 - an interpreter in the C locale puts LC_CTYPE into it
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from app.sandbox.zygote import serve_zygote  # noqa: PLC0415 - only now can it be found

    sys.path.pop(0)
    serve_zygote(int(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    main()
