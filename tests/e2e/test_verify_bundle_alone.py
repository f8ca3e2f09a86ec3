"""`verify-bundle` where nothing of MeshFlow is but the room `app/offline`, and no network.

Every kind of bundle is given to a Python that finds the standard library, `cryptography`, and a
copy of that room. A socket, another module of `app`, or a file opened to be written ends it.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.offline.bundle_reader import MEMBERS
from tests.architecture.source_tree import ROOT
from tests.e2e.server_process import run_command
from tests.support.published_bundles import policy_named, tar_named

GUARD = """
import os, sys

def guard(event, details):
    if event.startswith("socket.") or event in {"os.system", "subprocess.Popen", "os.exec"}:
        sys.stderr.write(f"reached for {event}\\n")
        os._exit(77)
    if event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR):
        sys.stderr.write(f"opened {details[0]} to write\\n")
        os._exit(78)
    own = details[0].split(".")[:2] if event == "import" else []
    if own[:1] == ["app"] and own not in (["app"], ["app", "offline"]):
        sys.stderr.write(f"imported {details[0]}\\n")
        os._exit(79)

sys.dont_write_bytecode = True
sys.addaudithook(guard)
sys.path[:0] = PLACES
"""
RUN = """
from app.offline.verify_bundle_main import main
import app
assert app.__file__ is None and len(list(app.__path__)) == 1
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A directory with nothing but the room, and one with nothing but the library."""
    alone, library = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("library")
    room = ROOT / "app" / "offline"
    shutil.copytree(room, alone / "app" / "offline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cryptography", "_cffi_backend"):
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        origin = Path(found.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (library / source.name).symlink_to(source)
    return [str(alone), str(library)]


def alone(places: list[str], program: str, *words: str) -> "subprocess.CompletedProcess[str]":
    code = GUARD.replace("PLACES", repr(places)) + program
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *words],
        cwd=places[0],
        env={},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def files(directory: Path, name: str) -> list[str]:
    (directory / "run.bundle").write_bytes(tar_named(name))
    (directory / "policy").write_text(policy_named(name) or "", encoding="ascii")
    return [str(directory / "run.bundle"), "--policy", str(directory / "policy"), "--json"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("plain", 0),
        ("shared batch", 0),
        ("anonymized", 0),
        ("deleted", 0),
        ("rotated, old pins", 0),
        ("tail not sequenced", 2),
        ("one witness of two", 2),
        ("plain: a value", 3),
        ("plain: a certificate by a key the bundle brings", 3),
        ("no bundle: a link", 4),
    ],
)
def test_a_bundle_gets_its_verdict_without_the_application(
    name: str, code: int, places: list[str], tmp_path: Path
) -> None:
    done = alone(places, RUN, *files(tmp_path, name))
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["exit"] == code
    assert done.stderr == ""


def test_without_a_policy_or_a_file_it_is_never_0(places: list[str], tmp_path: Path) -> None:
    given = files(tmp_path, "plain")
    assert alone(places, RUN, given[0]).returncode == 2
    assert alone(places, RUN, str(tmp_path / "nowhere"), *given[1:]).returncode == 4
    assert alone(places, RUN, given[0], "--policy", str(tmp_path / "nowhere")).returncode == 4
    assert alone(places, RUN).returncode == 4


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import socket\nsocket.socket()", 77),
        ("import socket\nsocket.getaddrinfo('localhost', 1)", 77),
        ("open('written', 'w')", 78),
        ("import app.domain.errors", 79),
    ],
)
def test_the_guard_sees_what_it_guards_against(program: str, code: int, places: list[str]) -> None:
    assert alone(places, program).returncode == code


def test_the_command_gives_the_same_verdicts(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    for name, code in (("plain", 0), ("no anchor", 2), ("plain: a value", 3)):
        done = run_command("verify-bundle", *files(tmp_path, name), environ=environ)
        assert done.code == code, done.err
        assert json.loads(done.out)["exit"] == code
    (tmp_path / "run.bundle").write_bytes(b"".join(bytes(512) for _ in MEMBERS))
    assert run_command("verify-bundle", str(tmp_path / "run.bundle"), environ=environ).code == 4
    assert run_command("verify-bundle", environ=environ).code == 4
    assert run_command("verify-bundle", "--help", environ=environ).code == 0
