"""The first layer of the tool `python`: what it refuses by reading, and that it only ever grows."""

import tracemalloc
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError
from app.tools.python_guard import FILE_NAME, first_objection, load_refusals

SHIPPED = load_refusals(None)


@pytest.mark.parametrize(
    "text",
    [
        "exec('1')",
        "eval('1')",
        "x = eval",
        "compile('1', '', 'eval')",
        "__import__('os')",
        "breakpoint()",
        "globals()['x']",
        "import ctypes",
        "import ctypes.util as u",
        "from ctypes import CDLL",
        "def late():\n    import subprocess",
        "from subprocess import run as r",
        "import socket",
        "import urllib.request",
        "from urllib import request",
        "import urllib\nurllib.request.urlopen('x')",
        "import importlib.util",
        "import multiprocessing.pool",
        "from . import x",
        "import os\nos.system('x')",
        "import os as o\no.system('x')",
        "from os import system",
        "from os import system as s",
        "from os import *",
        "import os\nos.environ",
        "import os\nos.execv('a', [])",
        "import os\nf = os.fork",
        "import sys\nsys.modules['os']",
        "import sys\nsys._getframe()",
        "import sys as s\ns.settrace(1)",
        "().__class__",
        "x.__subclasses__()",
        "f.__globals__",
        "f.__code__",
        "g.gi_frame",
        "e.__traceback__",
        "t.tb_frame.f_back",
        "__builtins__",
        "__loader__",
        "getattr(x, '__class__')",
        "getattr(x, 'a' + 'b')",
        "getattr(x, name)",
        "import os\ngetattr(os, 'system')",
        "import operator\noperator.attrgetter('__class__.__base__')",
        "setattr(x, n, 1)",
        "'{0.__class__}'.format(1)",
        "'{x.__init__.__globals__}'",
        "print(f'{x.__class__}')",
        "match x:\n    case y if y.__class__:\n        pass",
        "lambda: exec",
        "@eval\ndef f(): pass",
        "def f(x=exec('1')): pass",
        "x: eval('1') = 1",
        "[eval for _ in '1']",
    ],
)
def test_what_is_plainly_not_for_a_program_is_refused_with_its_line(text: str) -> None:
    objection = first_objection(text, SHIPPED)
    assert objection is not None
    assert objection.startswith("line ")
    assert objection.endswith("is not allowed")


@pytest.mark.parametrize(
    "text",
    [
        "print(6 * 7)",
        "import json, math, os, sys\nprint(os.path.join('a', 'b'), os.listdir('.'), sys.argv)",
        "import os\nos.makedirs('d', exist_ok=True)\nopen('d/f', 'w').write('x')",
        "class A:\n    def __init__(self): super().__init__()\n    def __eq__(self, o): ...",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1",
        "import re\nre.compile('x').sub('y', 'z')",
        "import platform\nplatform.system()",
        "if __name__ == '__main__':\n    print(__doc__)",
        "getattr(1, 'real')",
        "hasattr(1, 'imag')",
        "'{} {name}'.format(1, name=2)",
        "f'{1 + 1:>10}'",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    print(e, type(e).__name__)",
        "import asyncio\nasyncio.run(asyncio.sleep(0))",
        "from datetime import datetime\nprint(datetime(2020, 1, 1))",
        "with open('f') as f:\n    print(f.read())",
        "import sqlite3, csv, zipfile, statistics, collections, itertools, functools",
        "def exec_order(): pass\nexec_order()",
        "def broken(:",
    ],
)
def test_everyday_programs_are_not_refused(text: str) -> None:
    assert first_objection(text, SHIPPED) is None


def test_a_program_built_to_exhaust_the_reader_is_refused_or_left_to_the_worker() -> None:
    for text in ("(" * 5000, "-" * 100_000 + "1", "x" + ".y" * 20_000, "f(" * 90 + ")" * 90):
        first_objection(text, SHIPPED)  # must come back, whatever it says


def test_operators_add_and_take_nothing_away(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('modules = ["sqlite3"]\nnames = ["print"]\n')
    refusals = load_refusals(tmp_path)
    assert refusals.modules > SHIPPED.modules
    assert refusals.names == SHIPPED.names | {"print"}
    assert (refusals.members, refusals.attributes) == (SHIPPED.members, SHIPPED.attributes)
    assert first_objection("import sqlite3", refusals) is not None
    assert first_objection("exec('1')", refusals) is not None
    (tmp_path / FILE_NAME).write_text("names = []\nmodules = []\n")
    assert load_refusals(tmp_path) == SHIPPED


@pytest.mark.parametrize(
    "text", ["allow = ['exec']", "names = 1", "names = [1]", "names = [", "\x00", "x = " + "1" * 9]
)
def test_a_file_that_is_not_a_list_of_refusals_refuses_to_start(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ConfigurationError, match=FILE_NAME):
        load_refusals(tmp_path)


def test_what_the_policy_promises_is_on_the_shipped_list() -> None:
    assert {"exec", "eval", "compile"} <= SHIPPED.names
    assert {"ctypes", "subprocess", "socket", "importlib", "multiprocessing"} <= SHIPPED.modules
    assert {"os.system", "os.popen", "os.fork", "os.environ"} <= SHIPPED.members


@pytest.mark.parametrize("dot", [".", " . ", ".\\\n", "\t."])
def test_a_name_of_many_dots_is_refused_in_little_memory(dot: str) -> None:
    """The parser would take a hundred megabytes for it."""
    tracemalloc.start()
    try:
        for text in ("import a", "from a", "x = a"):
            told = first_objection(text + f"{dot}a" * 6_000, SHIPPED)
            assert told == "the program is nested too deeply to be read"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def test_names_of_a_few_dots_are_read_by_their_beginning() -> None:
    assert first_objection("import ctypes" + ".a" * 100, SHIPPED) is not None
    assert first_objection("import ctypesx" + ".a" * 100, SHIPPED) is None
    assert first_objection("x = 'Yes. No.' * 3\n" * 300, SHIPPED) is None
    assert first_objection("x = '" + "a." * 150 + "'", SHIPPED) is None


@pytest.mark.parametrize(
    "text",
    [
        "from json import __loader__ as door\ndoor.load_module('os')",
        "from json import __builtins__ as all_of_it",
        "from http.client import HTTPConnection",
        "from subprocess import *",
    ],
)
def test_what_is_imported_by_name_is_judged_by_module_and_by_name(text: str) -> None:
    assert first_objection(text, SHIPPED) is not None


def test_a_program_that_is_nested_too_deeply_is_refused_unread() -> None:
    told = first_objection("-" * 19_000 + "1", SHIPPED)
    assert told == "the program is nested too deeply to be read"
