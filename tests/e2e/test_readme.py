"""The README's commands, run as they stand there, block by block, in the order of the page."""

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT
from tests.e2e.server_process import PATIENCE_SECONDS, ServerProcess

_DEFAULT_URL = "http://127.0.0.1:8080"
_BLOCKS = re.findall(
    r"^```sh\n(.*?)^```$",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)
# What a block that calls make stands for. `serve` is what the tests' server runs, and `demo` what
# test_demo.py runs; `test` runs this very file.
_MAKE = {
    "make serve": "$(BIN)/meshflow serve --dev $(ARGS)",
    "make demo": "$(BIN)/meshflow demo",
    "make test": "$(PYTEST) -n $(WORKERS) $(ARGS)",
}

_MESHFLOW = """#!/bin/sh
exec "{python}" -P -m app.cli.entry "$@" --url "$SERVER"
"""
# For machines without curl: sends what the README's line says.
_CURL = """#!{python}
import sys
import httpx2
words = sys.argv[1:]
headers = [words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H"]
url = next(word for word in words if word.startswith("http"))
with httpx2.Client(trust_env=False, timeout=60) as client:
    sys.stdout.write(
        client.post(url, headers=headers, content=words[words.index("-d") + 1]).text
    )
"""


def _program(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text.format(python=sys.executable), encoding="utf-8")
    place.chmod(0o755)


def _filled(block: str, server: ServerProcess, run_id: str) -> str:
    """The block with what a reader fills in, and the address of this server."""
    keyed = re.sub(r"^KEY=mf_\w+$", f"KEY={server.submit_key}", block, flags=re.MULTILINE)
    named = re.sub(r"^RUN=run_\w+$", f"RUN={run_id}", keyed, flags=re.MULTILINE)
    return named.replace(_DEFAULT_URL, server.url)


def test_the_blocks_are_run_in_the_order_of_the_page(
    dev_server: ServerProcess, tmp_path: Path
) -> None:
    _program(tmp_path / ".venv" / "bin" / "meshflow", _MESHFLOW)
    _program(tmp_path / "fallback" / "curl", _CURL)
    environ = {
        "PATH": f"/usr/local/bin:/usr/bin:/bin:{tmp_path / 'fallback'}",
        "HOME": str(tmp_path),
        "SERVER": dev_server.url,
    }
    run_id, said = "", []
    for block in _BLOCKS:
        if block.startswith("make "):
            continue
        done = subprocess.run(
            ["sh", "-euc", _filled(block, dev_server, run_id)],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
        if "curl " in block:
            answer = json.loads(done.stdout)
            assert answer["status"] == "succeeded"
            assert "42" in answer["output"]
            run_id = answer["id"]
    answered, verified, told = said
    assert run_id in answered
    assert re.search(rf"run +{run_id}\nverdict +valid", verified)
    assert "This does not show:" in verified
    assert "42" in told
    assert stat.S_IMODE((tmp_path / "key.txt").stat().st_mode) == 0o600


@pytest.mark.parametrize(("block", "recipe"), _MAKE.items())
def test_a_make_target_is_what_the_tests_run(block: str, recipe: str) -> None:
    assert f"{block}\n" in _BLOCKS
    target = block.removeprefix("make ")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert found is not None
    assert found[1].strip() == recipe


def test_every_block_is_run_or_is_one_of_these_targets() -> None:
    assert {block.strip() for block in _BLOCKS if block.startswith("make ")} == _MAKE.keys()
    assert len(_BLOCKS) == len(_MAKE) + 3
