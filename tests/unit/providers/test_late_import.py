"""Importing the providers must not pay for the SDK: not for --help, migrations or probes."""

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
import app.providers.anthropic, app.providers.offline, app.providers.scripted
app.providers.anthropic.AnthropicProvider(lambda: "sk-test")
heavy = sorted({"anthropic", "httpx2", "pydantic", "opentelemetry"} & set(sys.modules))
print("heavy:", heavy)
"""


@pytest.mark.parametrize("optimise", ["-B", "-OB"])
def test_building_a_provider_imports_no_sdk(optimise: str) -> None:
    done = subprocess.run(
        [sys.executable, optimise, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout == "heavy: []\n"
