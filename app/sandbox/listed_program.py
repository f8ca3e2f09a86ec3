"""Becomes a program of the operator's list, by its words: no shell reads them.

By then the process is confined: the kernel executes nothing but what is listed, and neither the
program nor what it starts can leave the process group that ends with the call.

Threat: Exfiltration via web/shell tools
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_NOT_LISTED: Final = 126
_ENVIRONMENT: Final = {"HOME": ".", "LC_ALL": "C.UTF-8"}


def run_listed(words: Sequence[str], listed: Sequence[str]) -> int:
    """Become the program whose path is the first word. Comes back only when it cannot be run."""
    if not words or words[0] not in listed:
        os.write(2, b"the program is not on the list\n")
        return _NOT_LISTED
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # this interpreter ignores them
        signal.signal(number, signal.SIG_DFL)
    # One program may start another of the list, as tar does with gzip; the kernel lets no other.
    path = ":".join(sorted({str(Path(place).parent) for place in listed}))
    argv = [Path(words[0]).name, *words[1:]]
    try:
        os.execve(words[0], argv, {**_ENVIRONMENT, "PATH": path})  # noqa: S606 - what the call is for, by argv
    except (OSError, ValueError):
        os.write(2, b"the program could not be started\n")
    return _NOT_LISTED
