"""Runs a program under a kernel that lacks something: an outer filter answers for it.

    python -m tests.support.outer_filter '[[444, null, 38]]' program.py ...

Each item is a system call number, a first argument or null for any, and the errno it answers.
Written apart from the sandbox's own filter, so that a fault there cannot hide itself here.
"""

import ctypes
import json
import runpy
import struct
import sys


def load(answers: list[tuple[int, int | None, int]]) -> None:
    """Answer these calls with these errors, in this process and all it starts."""
    steps = [(0x20, 0, 0, 0)]
    for number, argument, code in answers:
        answer = (0x06, 0, 0, 0x00050000 | code)
        if argument is None:
            steps += [(0x15, 0, 1, number), answer]
        else:
            steps += [
                (0x15, 0, 4, number),
                (0x20, 0, 0, 16),
                (0x15, 0, 1, argument),
                answer,
                (0x20, 0, 0, 0),
            ]
    steps.append((0x06, 0, 0, 0x7FFF0000))
    listed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("=HxxxxxxQ", len(steps), ctypes.addressof(listed))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0) == 0


if __name__ == "__main__":
    load([tuple(item) for item in json.loads(sys.argv[1])])
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
