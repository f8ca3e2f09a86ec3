from pathlib import Path

import pytest

from app.domain.capability import Capabilities
from app.domain.errors import ConfigurationError
from app.domain.run import Budget
from app.keys.agent_catalogue import (
    BUILT_IN_AGENT,
    BudgetCap,
    TenantSettings,
    load_agents,
    load_tenant_settings,
)

TOOLS = ("calculator", "shell")


def write(config: Path, name: str, text: str) -> Path:
    path = config / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_assistant_is_always_there_with_every_tool(tmp_path: Path) -> None:
    for config in (None, tmp_path):
        agent = load_agents(config, tools=TOOLS, default_model="m")[BUILT_IN_AGENT]
        assert agent.tools == TOOLS
        assert agent.model == "m"
        assert agent.budget == Budget(
            max_steps=20, max_tokens=100_000, max_cost_micros=1_000_000, max_wall_seconds=300
        )


def test_a_file_makes_an_agent_and_the_rest_is_default(tmp_path: Path) -> None:
    write(
        tmp_path,
        "agents/book-keeper.toml",
        'description = "d"\nmodel = "x"\nsystem_prompt = "p"\ntools = ["calculator"]\n'
        "[budget]\nmax_steps = 3\n",
    )
    agents = load_agents(tmp_path, tools=TOOLS, default_model="m")
    assert set(agents) == {BUILT_IN_AGENT, "book-keeper"}
    agent = agents["book-keeper"]
    assert (agent.description, agent.model, agent.system_prompt) == ("d", "x", "p")
    assert agent.tools == ("calculator",)
    assert agent.budget.max_steps == 3
    assert agent.budget.max_tokens == 100_000


def test_a_file_may_override_the_assistant(tmp_path: Path) -> None:
    write(tmp_path, "agents/assistant.toml", 'name = "assistant"\ntools = []\n')
    agents = load_agents(tmp_path, tools=TOOLS, default_model="m")
    assert agents["assistant"].tools == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a", "colour = 1"),
        ("a", 'name = "b"'),
        ("a", 'tools = "shell"'),
        ("a", 'tools = ["Shell"]'),
        ("a", 'tools = ["a\\n"]'),
        ("a", 'tools = ["x", "x"]'),
        ("a", 'model = ""'),
        ("a", "[budget]\nmax_steps = 0"),
        ("a", "[budget]\nmax_steps = 1.5"),
        ("a", "[budget]\nmax_steps = true"),
        ("a", '[budget]\nmax_steps = "3"'),
        ("a", "[budget]\nmax_stepz = 3"),
        ("a", "not toml"),
        ("a", "x = " + "[" * 5000),
        ("A", ""),
        ("a b", ""),
    ],
)
def test_a_malformed_agent_stops_the_start(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, f"agents/{name}.toml", text)
    with pytest.raises(ConfigurationError, match="agents/") as caught:
        load_agents(tmp_path, tools=TOOLS, default_model="m")
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_not_text_stops_the_start(tmp_path: Path) -> None:
    write(tmp_path, "agents/a.toml", "").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not TOML"):
        load_agents(tmp_path, tools=TOOLS, default_model="m")


def test_a_missing_configuration_directory_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="MESHFLOW_CONFIG_DIR"):
        load_agents(tmp_path / "nowhere", tools=TOOLS, default_model="m")
    with pytest.raises(ConfigurationError, match="MESHFLOW_CONFIG_DIR"):
        load_tenant_settings(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "tenants").write_text("a file, not a folder")
    with pytest.raises(ConfigurationError, match="tenants/"):
        load_tenant_settings(tmp_path)


def test_a_tenants_file_sets_caps_capabilities_and_scrubbing(tmp_path: Path) -> None:
    write(
        tmp_path,
        "tenants/acme.toml",
        'capabilities = ["calculator"]\nscrub_phi = false\n[max_budget]\nmax_steps = 5\n',
    )
    write(tmp_path, "tenants/empty.toml", "")
    write(tmp_path, "tenants/none.toml", "capabilities = []")
    settings = load_tenant_settings(tmp_path)
    assert settings["acme"] == TenantSettings(
        max_budget=BudgetCap(max_steps=5),
        capabilities=frozenset({"calculator"}),
        bounds=Capabilities(tools=frozenset({"calculator"})),
        scrub_phi=False,
    )
    assert settings["empty"] == TenantSettings()
    assert settings["none"].capabilities == frozenset()
    assert TenantSettings().capabilities is None
    assert TenantSettings().scrub_phi is True


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("acme", "mode = 'loose'"),
        ("acme", "[capabilities]\ntool = ['calculator']"),
        ("acme", "[keys.short]\nmode = 'strict'"),
        ("acme", "scrub_phi = 'no'"),
        ("acme", "scrub_phi = 0"),
        ("acme", "[max_budget]\nmax_steps = -1"),
        ("acme", "[max_budget]\nsteps = 1"),
        ("acme", "capabilities = ['../x']"),
        ("Acme", ""),
    ],
)
def test_a_malformed_tenant_stops_the_start(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, f"tenants/{name}.toml", text)
    with pytest.raises(ConfigurationError, match="tenants/"):
        load_tenant_settings(tmp_path)


def test_a_cap_lowers_a_budget_and_never_raises_it() -> None:
    asked = Budget(max_steps=10, max_tokens=10, max_cost_micros=10, max_wall_seconds=10)
    cap = BudgetCap(max_steps=5, max_tokens=50, max_cost_micros=0)
    assert cap.applied_to(asked) == Budget(
        max_steps=5, max_tokens=10, max_cost_micros=0, max_wall_seconds=10
    )
