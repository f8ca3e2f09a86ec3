"""Runs a Python program in this very interpreter, which by then is confined and about to end.

The language itself is no boundary here; the kernel is. What is imported beforehand is there for
every program without reading a file: the interpreter may lie where the worker's account cannot go.

Threat: Privilege escalation via tool calls
"""

import ast
import atexit
import gc
import linecache
import sys
import sysconfig
import threading
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

NAME_OF_PROGRAM: Final = "<python>"

# What a program may want, and what these import late: all of it loaded before the fork.
_NOT_WANTED: Final = ("_test", "_ctypes_test", "_tkinter", "_xx", "xx", "_curses", "_dbm", "_gdbm")
_PRELOADED: Final = """
__future__ _pydecimal _pylong _strptime abc argparse array ast asyncio base64 binascii bisect
bz2 calendar cmath cmd code codecs codeop collections collections.abc colorsys compileall
concurrent.futures concurrent.futures.thread configparser contextlib contextvars copy copyreg
csv ctypes dataclasses datetime dbm.dumb decimal difflib dis email email.message email.mime.text
email.parser email.policy encodings.ascii encodings.base64_codec encodings.big5
encodings.bz2_codec encodings.cp1251 encodings.cp1252 encodings.cp437 encodings.cp850
encodings.euc_jp encodings.euc_kr encodings.gb18030 encodings.gb2312 encodings.gbk
encodings.hex_codec encodings.idna encodings.iso2022_jp encodings.iso8859_1 encodings.iso8859_15
encodings.koi8_r encodings.latin_1 encodings.mac_roman encodings.punycode encodings.quopri_codec
encodings.raw_unicode_escape encodings.rot_13 encodings.shift_jis encodings.unicode_escape
encodings.utf_16 encodings.utf_16_be encodings.utf_16_le encodings.utf_32 encodings.utf_7
encodings.utf_8_sig encodings.uu_codec encodings.zlib_codec enum errno faulthandler fcntl
fileinput fnmatch fractions ftplib functools gc getopt glob graphlib gzip hashlib heapq hmac
html html.entities html.parser http http.client http.cookies importlib.metadata
importlib.resources inspect io ipaddress itertools json json.tool keyword linecache locale
logging logging.handlers lzma math mimetypes mmap multiprocessing.dummy
multiprocessing.shared_memory numbers operator optparse os pathlib pickle pickletools pkgutil
platform plistlib pprint pty queue quopri random re reprlib resource sched secrets select
selectors shelve shlex shutil signal smtplib socket sqlite3 ssl stat statistics string
stringprep struct subprocess symtable sysconfig tarfile tempfile termios textwrap threading time
timeit token tokenize tomllib traceback tty types typing unicodedata unittest unittest.mock
urllib.error urllib.parse urllib.request uuid warnings wave weakref xml.dom.minidom
xml.etree.ElementTree xml.sax zipfile zipimport zlib zoneinfo
"""

# Its last statement is no expression: nothing is shown, and `_` is not set.
_WARMS_UP: Final = """
for n in [str(x) for x in range(3)]:
    k = f"{n:>3}"
    print(k, sorted({"b": 2.5, "a": (1, None)}.items()))
"""


def preload() -> None:
    """Import what programs will want; what this interpreter does not have is left out.

    Every extension module too: once confined, a worker can map no code.
    """
    compiled = Path(sysconfig.get_path("platstdlib")) / "lib-dynload"
    names = [path.name.partition(".")[0] for path in sorted(compiled.glob("*.so"))]
    wanted = [name for name in names if not name.startswith(_NOT_WANTED)]
    for name in (*_PRELOADED.split(), *wanted):
        try:
            __import__(name)
        except ImportError:
            continue


def warm_up() -> None:
    """Do what every program does, once and with nothing to show for it.

    The memory that it takes is this worker's own by then, no more the zygote's.
    """
    _open_streams()
    _execute(_WARMS_UP, types.ModuleType("__main__"))
    gc.collect()


def run_native(text: str) -> int:
    """Run the program to its end and give its exit code; a last expression is shown, as in a REPL.

    Never raises: what the program raises is told on its standard error.
    """
    _open_streams()
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = [""]
    sys.path.append("")
    lines = text.splitlines(keepends=True)
    linecache.cache[NAME_OF_PROGRAM] = (len(text), None, lines, NAME_OF_PROGRAM)
    code = _guarded(lambda: _execute(text, module))
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join()
    code = _guarded(atexit._run_exitfuncs) or code  # noqa: SLF001 - the interpreter's own end is never reached
    module.__dict__.clear()  # files that the program left open are closed, as at any other end
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    return code


def _open_streams() -> None:
    """Fresh text streams over the descriptors of this call."""
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115 - a descriptor, open to the end
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = open(  # noqa: SIM115 - a descriptor, open to the end
            number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        setattr(sys, name, stream)


def _execute(text: str, module: types.ModuleType) -> None:
    tree = ast.parse(text, NAME_OF_PROGRAM)
    shown = [tree.body.pop()] if tree.body and isinstance(tree.body[-1], ast.Expr) else []
    exec(compile(tree, NAME_OF_PROGRAM, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - this is what the confined worker is for
    if shown:
        last = ast.Interactive(body=list(shown))
        exec(compile(last, NAME_OF_PROGRAM, "single", dont_inherit=True), module.__dict__)  # noqa: S102 - as above


def _guarded(step: Callable[[], None]) -> int:
    """The exit code that a step of the program comes to."""
    try:
        step()
    except SystemExit as wanted:
        return _exit_code(wanted.code)
    except BaseException as raised:  # noqa: BLE001 - whatever it is, it is the program's own
        _tell(raised)
        return 1
    return 0


def _exit_code(code: object) -> int:
    match code:
        case None:
            return 0
        case int():
            return code & 0xFF
        case _:
            sys.stderr.write(f"{code}\n")
            return 1


def _tell(raised: BaseException) -> None:
    """The traceback, without our own frames. Says nothing when even that fails."""
    try:
        own: TracebackType | None = raised.__traceback__
        while own is not None and own.tb_frame.f_code.co_filename != NAME_OF_PROGRAM:
            own = own.tb_next
        traceback.print_exception(type(raised), raised, own)
    except BaseException:  # noqa: BLE001 - a hostile exception may fail to be printed
        return
