"""Importing the providers must not pay for their SDKs, and one that is used not for the others."""

import subprocess
import sys

import pytest

from tests.support.fake_messages_api import fake_messages_api, text

_PROGRAM = """
import sys
import app.roster
import app.providers.anthropic, app.providers.offline, app.providers.scripted
from app.providers.extras.extra_providers import bedrock_provider, gemini_provider, openai_provider
app.providers.anthropic.anthropic_provider(lambda: "sk-test")
openai_provider(lambda: "sk-test"), gemini_provider(lambda: "k"), bedrock_provider("us-east-1")
sdks = {"anthropic", "openai", "google.genai", "boto3", "botocore", "numpy", "opentelemetry"}
print("heavy:", sorted(sdks & set(sys.modules)))
"""
_LIGHT = """
import sys
import app.providers.anthropic, app.providers.offline, app.providers.scripted
import app.providers.extras.extra_providers
heavy = sorted({"anthropic", "httpx2", "pydantic", "opentelemetry", "google"} & set(sys.modules))
print("heavy:", heavy)
"""
# What a server does with a task: every provider plugged in, one asked.
_RUN = """
import asyncio, importlib.util, sys
from pathlib import Path
from app import roster
from app.domain.step import ModelRequest, Origin, TextMessage
from app.domain.verdict import ClearedRequest, Decision, Point, PolicyRef, Verdict
from app.settings import Settings
environ = {
    "ANTHROPIC_API_KEY": "sk-test-0", "MESHFLOW_ANTHROPIC_BASE_URL": sys.argv[1],
    "OPENAI_API_KEY": "sk-test-1", "GEMINI_API_KEY": "k-2", "MESHFLOW_BEDROCK_REGION": "us-east-1",
}
settings = Settings.from_environ(environ, uid=1000, home=Path("/nonexistent"))
plugged = roster.providers(settings)
decision = Decision(point=Point.LLM_REQUEST, verdict=Verdict.ALLOW, rules=(), code="",
    policy=PolicyRef(policy_id="test", version=1, digest="0" * 64))
request = ModelRequest(model="claude-sonnet-5-5", system="", tools=(), max_output_tokens=9,
    messages=(TextMessage(origin=Origin.CALLER, text="hello"),), timeout_seconds=120.0)

async def ask():
    reply = await plugged["anthropic"].complete(ClearedRequest(request=request, decision=decision))
    await plugged["anthropic"].close()
    return reply.text

print(asyncio.run(ask()), *sorted(plugged))
print(sorted({"openai", "google.genai", "boto3", "botocore", "numpy"} & set(sys.modules)))
print([n for n in ("openai", "google.genai", "boto3") if importlib.util.find_spec(n) is None])
"""

# The same where no extra is installed.
_WITHOUT = """
import sys
for name in ("openai", "google.genai", "boto3"):
    sys.modules[name] = None
from pathlib import Path
from app import roster
from app.domain.errors import ConfigurationError
from app.settings import Settings
keys = {"OPENAI_API_KEY": "sk-1", "GEMINI_API_KEY": "k-2", "MESHFLOW_BEDROCK_REGION": "us-east-1"}

def plugged(**more):
    settings = Settings.from_environ({**keys, **more}, uid=1000, home=Path("/nonexistent"))
    try:
        return sorted(roster.providers(settings))
    except ConfigurationError as error:
        return str(error)

print(plugged())
for name in ("openai", "gemini", "bedrock"):
    print(plugged(MESHFLOW_PROVIDER=name))
"""


def printed(program: str, *arguments: str, optimise: str = "-B") -> list[str]:
    argv = [sys.executable, optimise, "-c", program, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("optimise", ["-B", "-OB"])
@pytest.mark.parametrize("program", [_PROGRAM, _LIGHT], ids=["roster", "providers"])
def test_building_a_provider_imports_no_sdk(optimise: str, program: str) -> None:
    assert printed(program, optimise=optimise) == ["heavy: []"]


def test_with_every_extra_installed_a_run_of_one_provider_leaves_the_others_out() -> None:
    with fake_messages_api([text("Good day.")]) as api:
        said, imported, missing = printed(_RUN, api.base_url)
    assert said == "Good day. anthropic bedrock gemini offline openai"
    assert (imported, missing) == ("[]", "[]")


def test_without_its_extra_a_chosen_provider_refuses_to_start_and_another_is_not_there() -> None:
    first, *told = printed(_WITHOUT)
    assert first == "['offline']"
    assert [line.rpartition(": ")[2] for line in told] == [
        "pip install 'meshflow[openai]'",
        "pip install 'meshflow[gemini]'",
        "pip install 'meshflow[bedrock]'",
    ]
