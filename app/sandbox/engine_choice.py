"""What a zygote loads for the one engine it serves, and what the workers of that engine may read.

All of it is in memory before the first worker is forked: a confined worker loads no code.

Threat: Privilege escalation via tool calls
"""

import os
import sys
import sysconfig
from collections.abc import Callable
from typing import Final, assert_never

from app.sandbox.execution import Argv, EngineName, ExecLimits, Program, SourceText
from app.sandbox.kernel_calls import Kernel
from app.sandbox.landlock import DEVICE, EXECUTE, READ
from app.sandbox.listed_program import run_listed
from app.sandbox.monty_engine import Monty, hold_interpreter, interpreter_places
from app.sandbox.native_engine import preload, run_native, warm_up
from app.sandbox.worker_child import Engine
from app.sandbox.zygote_configuration import ZygoteConfiguration

_CANNOT: Final = 126
# Never readable, though they lie in the standard library's directory: other people's code.
_NOT_THE_LIBRARY: Final = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "ensurepip",
        "idlelib",
        "lib-dynload",  # nothing can be mapped to run any more
        "lib2to3",
        "site-packages",
        "test",
        "tkinter",
        "turtledemo",
    }
)
# What starts a dynamically linked program, by architecture and C library; most are not there.
_LOADERS: Final = (
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
)


def load_engine(configured: ZygoteConfiguration, kernel: Kernel) -> Engine:
    """The engine, with all it needs in memory. ImportError, OSError when a part is not there."""
    match configured.engine:
        case EngineName.NATIVE:
            preload()
            return _native
        case EngineName.MONTY:
            hold_interpreter(configured.interpreter)
            return Monty(kernel, has_files=configured.has_files).run
        case EngineName.VIRTUAL_SHELL:
            return _virtual_engine(configured.libraries, has_files=configured.has_files)
        case EngineName.EXEC:
            return _listed_engine(configured.profile.executable)
        case _:
            assert_never(configured.engine)


def load_waiting(configured: ZygoteConfiguration, kernel: Kernel) -> Engine | None:
    """What a worker does that is made before its call, or None: this engine's workers never wait.

    It has no files: when it is confined nobody knows yet whose it will be.
    """
    if configured.engine is EngineName.MONTY:
        return Monty(kernel, has_files=False).wait
    return None


def warm_up_of(configured: ZygoteConfiguration) -> Callable[[], None] | None:
    """What a worker does that is forked before its call, or None: this engine's never are."""
    match configured.engine:
        case EngineName.NATIVE:
            return warm_up
        case EngineName.MONTY | EngineName.VIRTUAL_SHELL:
            return _nothing
        case EngineName.EXEC:
            return None  # what it starts takes longer than all that could be saved
        case _:
            assert_never(configured.engine)


def _nothing() -> None:
    """There is nothing that every program does."""


def reachable(configured: ZygoteConfiguration) -> list[tuple[str, int]]:
    """Paths and Landlock rights beside the workspace. Some of them may not exist."""
    profile = configured.profile
    places = [(path, READ) for path in profile.readable]
    places += [(path, DEVICE) for path in profile.devices]
    match configured.engine:
        case EngineName.NATIVE:
            library = sysconfig.get_path("stdlib")
            with os.scandir(library) as entries:
                # What is loaded already is not read again, and each rule costs every worker.
                names = sorted(entry.name for entry in entries if _is_still_read(entry.name))
            places += [(f"{library}/{name}", READ) for name in names]
        case EngineName.MONTY:
            places += interpreter_places(configured.interpreter)
        case EngineName.VIRTUAL_SHELL:
            pass
        case EngineName.EXEC:
            places += [(path, READ) for path in _shared_libraries()]
            places += [(path, READ | EXECUTE) for path in (*_LOADERS, *profile.executable)]
        case _:
            assert_never(configured.engine)
    return places


def _is_still_read(name: str) -> bool:
    stem, _, ending = name.partition(".")
    is_loaded = ending == "py" and stem in sys.modules
    return not is_loaded and name not in _NOT_THE_LIBRARY


def _shared_libraries() -> tuple[str, ...]:
    own = f"/usr/lib/{os.uname().machine}-linux-gnu"
    places = (own,) if os.path.isdir(own) else ("/usr/lib64", "/usr/lib", "/lib")  # noqa: PTH112 - a plain string is all there is
    return (*places, "/usr/lib/locale", "/etc/ld.so.cache")


def not_here(_: Program, __: ExecLimits) -> int:
    """What an engine does that could not be loaded."""
    return _CANNOT


def _native(program: Program, _: ExecLimits) -> int:
    match program:
        case SourceText(text=text):
            return run_native(text)
        case Argv():
            return _CANNOT


def _virtual_engine(libraries: tuple[str, ...], *, has_files: bool) -> Engine:
    sys.path.extend(libraries)
    from app.sandbox.virtual_shell import run_virtual  # noqa: PLC0415 - no other engine has, or needs, its library

    del sys.path[len(sys.path) - len(libraries) :]

    def run(program: Program, limits: ExecLimits) -> int:
        match program:
            case SourceText(text=text):
                return run_virtual(text, limits, has_files=has_files)
            case Argv():
                return _CANNOT

    return run


def _listed_engine(listed: tuple[str, ...]) -> Engine:
    def run(program: Program, _: ExecLimits) -> int:
        match program:
            case Argv(words=words):
                return run_listed(words, listed)
            case SourceText():
                return _CANNOT

    return run
