"""Tools of other distributions: off unless named, held to the contract, refused by name."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from app import roster
from app.domain.errors import ConfigurationError
from app.providers.scripted import ScriptedProvider
from app.settings import Settings
from app.tools.third_party import GROUP, third_party_tools
from app.wiring import Overrides
from tests.e2e.server_process import run_command, surroundings
from tests.integration.gate.gate_scenes import run_to_end
from tests.integration.gate.lost_model import call, calls, says
from tests.support.databases import Roles
from tests.support.live_server import live_server
from tests.support.tool_distribution import MODULE, installed_tools


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_tools(tmp_path_factory.mktemp("tools"))


@pytest.fixture
def installed(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(scratch))
    yield scratch
    for name in [name for name in sys.modules if name.partition(".")[0] == MODULE]:
        del sys.modules[name]


def _settings(tmp_path: Path, tools: str) -> Settings:
    environ = {"MESHFLOW_DATA_DIR": str(tmp_path), "MESHFLOW_TOOLS": tools}
    return Settings.from_environ(environ, uid=1000, home=tmp_path)


def _refusal(tmp_path: Path, tools: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        roster.tools(_settings(tmp_path, tools))
    return str(refused.value)


def test_an_installed_tool_that_is_not_named_is_not_even_imported(
    installed: Path, tmp_path: Path
) -> None:
    assert (installed / MODULE).is_dir()
    assert len(entry_points(group=GROUP)) > 5
    assert roster.tools(_settings(tmp_path, "")) == roster.TOOLS
    assert MODULE not in sys.modules


@pytest.mark.usefixtures("installed")
def test_a_named_tool_is_offered_beside_the_built_in_ones(tmp_path: Path) -> None:
    tools = roster.tools(_settings(tmp_path, "probe_echo"))
    assert [tool.spec.name for tool in tools] == [
        *(tool.spec.name for tool in roster.TOOLS),
        "probe_echo",
    ]
    assert f"{MODULE}.raises" not in sys.modules


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("probe_other", "'probe_other' calls itself 'probe_echo'"),
        ("probe_no_roles", "the argument 'word' has no role"),
        ("probe_open", "its schema is not closed"),
        ("probe_pattern", "'probe_pattern': a pattern that RE2 does not know"),
        ("probe_hidden", "invisible characters"),
        ("probe_raises", "'probe_raises' cannot be loaded: RuntimeError"),
        ("probe_class", "'probe_class' is no object"),
        ("probe_plain", "'probe_plain' is no object"),
        ("probe_nothing", "'probe_nothing' is no object"),
        ("probe_gone", "'probe_gone' cannot be loaded: AttributeError"),
        ("calculator", "'calculator' has the name of a built-in tool"),
        ("python", "'python' has the name of a built-in tool"),
        ("http_fetch", "'http_fetch' has the name of a built-in tool"),
        ("probe_absent", "names 'probe_absent', but no installed distribution offers"),
        ("probe_echo,probe_echo", "names a tool twice"),
        ("probe_echo,probe_open", "'probe_open'"),
    ],
)
def test_a_tool_that_is_not_as_it_must_be_refuses_to_start_by_its_name(
    name: str, told: str, tmp_path: Path
) -> None:
    refusal = _refusal(tmp_path, name)
    assert told in refusal
    assert "/srv" not in refusal


@pytest.mark.usefixtures("installed")
def test_two_distributions_that_offer_one_name_are_refused() -> None:
    twice = [
        EntryPoint(name="probe_echo", value=f"{MODULE}.{module}:TOOL", group=GROUP)
        for module in ("good", "other_name")
    ]
    with pytest.raises(ConfigurationError, match="more than one distribution"):
        third_party_tools(["probe_echo"], taken=(), offered=twice)
    assert MODULE not in sys.modules


@pytest.mark.usefixtures("installed")
def test_a_run_calls_the_tool_through_the_gate(roles: Roles) -> None:
    said = [
        calls(call("probe_echo", {"word": "once"}, "c1")),
        calls(call("probe_echo", {"word": "x" * 101}, "c2")),
        says("Done."),
    ]
    provider = ScriptedProvider(said)
    overrides = Overrides(providers={"scripted": provider}, default_model="scripted")
    with (
        live_server(roles, overrides, MESHFLOW_TOOLS="probe_echo") as live,
        live.client() as client,
    ):
        told = client.get("/v1/tools").json()["data"]
        ending = run_to_end(client, {"instructions": "Say it.", "tools": ["probe_echo"]})
    assert "probe_echo" in [tool["name"] for tool in told if tool["available"]]
    assert ending.outcomes("tool.decided") == ["allow", "schema:arguments"]
    assert "again: once" in repr(provider.requests[-1].messages)


def test_a_server_with_a_bad_tool_does_not_start_and_says_which(
    scratch: Path, roles: Roles, tmp_path: Path
) -> None:
    names = {
        "PYTHONPATH": str(scratch),
        "MESHFLOW_DATABASE_URL": roles.app,
        "MESHFLOW_TOOLS": "probe_no_roles",
    }
    environ = surroundings(tmp_path / "data", **names)
    done = run_command("serve", "--dev", "--port", "0", environ=environ)
    assert done.code == 2
    assert "the tool 'probe_no_roles' does not keep the tool contract" in done.err
    assert "Traceback" not in done.err
    assert str(scratch) not in done.err
