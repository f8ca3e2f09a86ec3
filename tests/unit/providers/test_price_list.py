"""The operator's prices stand in the place of the table's, and one wrong word stops the start."""

from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError
from app.providers.price_list import load_prices
from app.providers.prices import MODELS, cost_micros
from app.roster import providers
from app.settings import Settings
from tests.support.provider_wires import KEY

OWN = """
[models."{name}"]
provider = "anthropic"
input_micros_per_million = 1_000_000
output_micros_per_million = 2_000_000
max_output_tokens = 1000
context_tokens = 5000
"""


def _written(directory: Path, text: str) -> Path:
    (directory / "prices.toml").write_text(text)
    return directory


def test_without_a_file_the_table_holds(tmp_path: Path) -> None:
    assert load_prices(None) is MODELS
    assert load_prices(tmp_path) is MODELS


def test_a_row_of_the_operator_adds_a_model_or_replaces_one(tmp_path: Path) -> None:
    own = OWN.format(name="ours-1") + OWN.format(name="claude-sonnet-5-5")
    long_prompt = (
        "long_prompt = { above_tokens = 10, input_micros_per_million = 3_000_000,"
        " output_micros_per_million = 0 }\n"
    )
    found = load_prices(_written(tmp_path, own + long_prompt))
    assert found.keys() == MODELS.keys() | {"ours-1"}
    assert cost_micros(found["ours-1"], input_tokens=3, output_tokens=4) == 11
    assert cost_micros(found["claude-sonnet-5-5"], input_tokens=11, output_tokens=4) == 33
    assert found["claude-opus-5"] == MODELS["claude-opus-5"]


@pytest.mark.parametrize(
    "text",
    [
        "models = 3",
        "[models",
        "",
        OWN.format(name="m") + "colour = 3\n",
        "currency = 'EUR'\n" + OWN.format(name="m"),
        OWN.format(name="m").replace("anthropic", "scripted"),
        OWN.format(name="m").replace("anthropic", "offline"),
        OWN.format(name="m").replace("= 1_000_000", "= -1"),
        OWN.format(name="m").replace("= 1_000_000", "= 1.5"),
        OWN.format(name="m").replace("= 1_000_000", '= "1"'),
        OWN.format(name="m").replace("= 1_000_000", "= 1_000_000_000_001"),
        OWN.format(name="m").replace("= 5000", "= 0"),
        OWN.format(name="m").replace("max_output_tokens = 1000\n", ""),
        OWN.format(name="two words"),
        OWN.format(name="x" * 201),
        "".join(OWN.format(name=f"m{number}") for number in range(501)),
        "# " + "x" * (1 << 20),
    ],
)
def test_a_file_that_is_not_right_stops_the_start_and_shows_nothing_else(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_prices(_written(tmp_path, text))
    assert str(refused.value).startswith("prices.toml")
    assert str(tmp_path) not in str(refused.value)


def test_the_stand_ins_cannot_be_named(tmp_path: Path) -> None:
    for name in ("offline", "scripted"):
        with pytest.raises(ConfigurationError):
            load_prices(_written(tmp_path, OWN.format(name=name)))


def test_a_provider_answers_for_the_models_of_the_list(tmp_path: Path) -> None:
    settings = Settings.from_environ(
        {"MESHFLOW_DATA_DIR": str(tmp_path), "ANTHROPIC_API_KEY": KEY}, uid=1000, home=tmp_path
    )
    found = providers(settings, load_prices(_written(tmp_path, OWN.format(name="ours-1"))))
    assert vars(found["anthropic"])["_models"]["ours-1"].provider == "anthropic"
