import copy
import dataclasses
import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import ConfigurationError
from app.provider_settings import KEY_NAMES, ProviderName
from app.settings import (
    FOREIGN_NAMES,
    KNOWN,
    PREFIX,
    SECRET_NAMES,
    Secret,
    Settings,
)

HOME = Path("/home/somebody")
PASSWORD = "hunter2-Very-Secret-Value-0123456789"
URL = f"postgresql://mf_app:{PASSWORD}@db:5432/meshflow"


def read(environ: Mapping[str, str], *, dev: bool = False, uid: int = 1000) -> Settings:
    return Settings.from_environ(environ, dev=dev, uid=uid, home=HOME)


def refusal(environ: Mapping[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(environ)
    error: BaseException | None = caught.value
    text = str(error)
    assert error is not None
    assert error.__cause__ is None  # nothing shows a value in a traceback either
    assert error.__context__ is None or error.__suppress_context__
    return text


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = read({})
    assert settings.api_keys is None
    assert settings.database_url is None
    assert settings.data_dir == HOME / ".local/share/meshflow"
    assert settings.workspace_dir == HOME / ".local/share/meshflow/workspace"
    assert settings.ledger_key_dir == HOME / ".local/share/meshflow-keys"
    assert settings.config_dir is None
    assert settings.third_party_tools == ()
    assert ("MESHFLOW_TOOLS", "(not set)", "default") in settings.describe()
    assert settings.result_ttl_seconds == 86_400
    assert settings.max_body_bytes == 1_048_576
    assert settings.max_concurrent_runs == 64
    assert settings.max_queued_runs == 1024
    assert settings.model_timeout_seconds == 60
    assert settings.docs is True
    assert settings.log_level == "info"
    assert settings.models.chosen is ProviderName.OFFLINE
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.ignored_names == ()
    assert settings.dev is False


def test_every_value_is_taken_from_the_environment() -> None:
    settings = read(
        {
            "MESHFLOW_API_KEYS": PASSWORD,
            "MESHFLOW_DATABASE_URL": URL,
            "MESHFLOW_OWNER_DATABASE_URL": URL + "o",
            "MESHFLOW_SEQUENCER_DATABASE_URL": URL + "s",
            "MESHFLOW_ERASER_DATABASE_URL": URL + "e",
            "MESHFLOW_AUDIT_DATABASE_URL": URL + "a",
            "MESHFLOW_DATA_DIR": "/srv/mf",
            "MESHFLOW_WORKSPACE_DIR": "~/ws",
            "MESHFLOW_LEDGER_KEY_DIR": "/srv/keys",
            "MESHFLOW_ERASURE_KEY_FILE": "/srv/erasing/key",
            "MESHFLOW_ERASURE_JOURNAL": "/srv/erasing/journal",
            "MESHFLOW_DEPLOYMENT": "example.com/mf",
            "MESHFLOW_WITNESSES": "/etc/witnesses",
            "MESHFLOW_ANCHOR_FILE": "~/anchor",
            "MESHFLOW_CONFIG_DIR": "/etc/mf",
            "MESHFLOW_TOOLS": "weather, acme.stock-price",
            "MESHFLOW_SANDBOX": "off-unsafe",
            "MESHFLOW_PYTHON_ENGINE": "monty",
            "MESHFLOW_RESULT_TTL_SECONDS": "60",
            "MESHFLOW_MAX_BODY_BYTES": "2048",
            "MESHFLOW_MAX_CONCURRENT_RUNS": "2",
            "MESHFLOW_MAX_QUEUED_RUNS": "7",
            "MESHFLOW_MODEL_TIMEOUT_SECONDS": "5",
            "MESHFLOW_DOCS": "off",
            "MESHFLOW_LOG_LEVEL": "DEBUG",
            "MESHFLOW_PROVIDER": "offline",
            "MESHFLOW_ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
            "MESHFLOW_OPENAI_BASE_URL": "http://127.0.0.1:10",
            "MESHFLOW_GEMINI_BASE_URL": "http://127.0.0.1:11",
            "MESHFLOW_BEDROCK_REGION": "eu-central-1",
            "MESHFLOW_BEDROCK_BASE_URL": "http://127.0.0.1:12",
            "ANTHROPIC_API_KEY": "sk-ant-x",
            "OPENAI_API_KEY": "sk-open-x",
            "GEMINI_API_KEY": "gem-x",
            "MESHFLOW_HOST": "0.0.0.0",  # noqa: S104 - the example of a wide bind
            "MESHFLOW_PORT": "9000",
            "MESHFLOW_TEST_DATABASE_URL": "anything",
        },
        dev=True,
    )
    shown = [s.reveal() if isinstance(s, Secret) else s for s in dataclasses.astuple(settings)]
    assert [*shown[:26], *shown[27:29]] == [
        True,
        PASSWORD,
        None,
        URL,
        URL + "o",
        URL + "s",
        URL + "e",
        URL + "a",
        Path("/srv/mf"),
        HOME / "ws",
        Path("/srv/keys"),
        Path("/srv/erasing/key"),
        Path("/srv/erasing/journal"),
        "example.com/mf",
        Path("/etc/witnesses"),
        HOME / "anchor",
        Path("/etc/mf"),
        ("weather", "acme.stock-price"),
        ("off-unsafe", "monty"),
        60,
        2048,
        2,
        7,
        5,
        False,
        "debug",
        "0.0.0.0",  # noqa: S104 - as above
        9000,
    ]
    models = dataclasses.astuple(settings.models)
    assert [s.reveal() if isinstance(s, Secret) else s for s in models] == [
        "offline",
        "sk-ant-x",
        "http://127.0.0.1:9",
        "sk-open-x",
        "http://127.0.0.1:10",
        "gem-x",
        "http://127.0.0.1:11",
        "eu-central-1",
        "http://127.0.0.1:12",
    ]
    assert settings.models.secret_values() == ["sk-ant-x", "sk-open-x", "gem-x"]


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({}, 0, "/var/lib/meshflow"),
        ({"XDG_DATA_HOME": "/x/data"}, 0, "/var/lib/meshflow"),
        ({"XDG_DATA_HOME": "/x/data"}, 1000, "/x/data/meshflow"),
        ({"XDG_DATA_HOME": "relative"}, 1000, "/home/somebody/.local/share/meshflow"),
        ({"XDG_DATA_HOME": ""}, 1000, "/home/somebody/.local/share/meshflow"),
        ({"MESHFLOW_DATA_DIR": ""}, 1000, "/home/somebody/.local/share/meshflow"),
        ({"MESHFLOW_DATA_DIR": "~/d"}, 0, "/home/somebody/d"),
    ],
)
def test_the_data_directory_follows_the_user(
    environ: dict[str, str], uid: int, expected: str
) -> None:
    settings = read(environ, uid=uid)
    assert settings.data_dir == Path(expected)
    assert settings.ledger_key_dir == Path(expected + "-keys")
    assert settings.workspace_dir == Path(expected) / "workspace"


def test_a_relative_directory_becomes_absolute() -> None:
    assert read({"MESHFLOW_DATA_DIR": "d"}).data_dir == Path.cwd() / "d"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("45s", 45), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)],
)
def test_the_result_ttl_reads_seconds_and_units(text: str, seconds: int) -> None:
    assert read({"MESHFLOW_RESULT_TTL": text}).result_ttl_seconds == seconds
    assert read({"MESHFLOW_RESULT_TTL_SECONDS": text}).result_ttl_seconds == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RESULT_TTL", "-1"),
        ("RESULT_TTL", "1w"),
        ("RESULT_TTL", "366d"),
        ("RESULT_TTL", "1h30m"),
        ("RESULT_TTL", "\u0661"),  # a digit, but not one of ours
        ("MAX_BODY_BYTES", "1"),
        ("MAX_BODY_BYTES", "1e6"),
        ("MAX_CONCURRENT_RUNS", "0"),
        ("MODEL_TIMEOUT_SECONDS", "soon"),
        ("DOCS", "yes"),
        ("SANDBOX", "off"),
        ("SANDBOX", "OFF-UNSAFE"),
        ("SANDBOX", "off_unsafe"),
        ("SANDBOX", "Strict"),
        ("PYTHON_ENGINE", "Monty"),
        ("PYTHON_ENGINE", "virtual"),
        ("PYTHON_ENGINE", "auto"),
        ("TOOLS", "weather,"),
        ("TOOLS", "we ather"),
        ("TOOLS", "Weather"),
        ("TOOLS", "../weather"),
        ("LOG_LEVEL", "loud"),
        ("PROVIDER", "openai"),
        ("PORT", "65536"),
        ("PORT", "udp://10.0.0.1:80"),
        ("HOST", "a b"),
        ("DATA_DIR", "/a\nb"),
        ("ANTHROPIC_BASE_URL", "ftp://host"),
        ("ANTHROPIC_BASE_URL", f"https://user:{PASSWORD}@host"),
        ("ANTHROPIC_BASE_URL", f"https://host/?key={PASSWORD}"),
        ("ANTHROPIC_BASE_URL", "https://host:port"),
        ("ANTHROPIC_BASE_URL", "https://"),
        ("DATABASE_URL", f"mysql://u:{PASSWORD}@h/d"),
        ("DATABASE_URL", PASSWORD),
        ("DATABASE_URL", "postgresql://"),
        ("DATABASE_URL", f"postgresql://u:p@{PASSWORD}:x@h/d"),
        ("DATABASE_URL", f"postgresql://u:p@{PASSWORD}@h/d"),
        ("DATABASE_URL", f"postgresql://u:p/@{PASSWORD}/@h/d"),
        ("DATABASE_URL", f"postgresql://u@h:{PASSWORD}/d"),
        ("DATABASE_URL", "postgresql://u:p@h:65536/d"),
        ("DATABASE_URL", "postgresql://u:p@[::1/d"),
        ("DATABASE_URL", ""),
        ("API_KEYS", "  "),
        ("API_KEYS_FILE", ""),
        ("DATABASE_URL_FILE", " "),
    ],
)
def test_a_malformed_value_is_refused_by_name_and_not_shown(name: str, value: str) -> None:
    text = refusal({PREFIX + name: value})
    assert PREFIX + name in text
    assert PASSWORD not in text
    assert "user:" not in text


@pytest.mark.parametrize(
    "place",
    [
        "u:p@h:5432/d?sslmode=require",
        "u:a:b/c?d#e@h/d",
        "u@h",
        "u:p@[::1]:5432/d",
        "/d?host=/run/postgres",
        "nobody@/none",
        "u:p%40q@10.0.0.1:65535/",
        "u:p@h/d?ssl=verify-full&target_session_attrs=primary",
        "u@h/d?passfile=/run/secrets/pgpass&prepared_statement_cache_size=0",
    ],
)
def test_a_database_url_that_can_be_opened_is_taken(place: str) -> None:
    read({"MESHFLOW_DATABASE_URL": f"postgresql://{place}"})


@pytest.mark.parametrize(
    "query",
    [
        f"{PASSWORD}=1",
        "command_timeout=1",
        "prepared_statement_cache_size=all",
        "gsslib=other",
        "server_settings=x",
        f"sslmode={PASSWORD}",
        "ssl=require&ssl=disable",
        "target_session_attrs=any-one",
        "port=x",
        "host=",
    ],
)
def test_a_database_url_that_the_driver_would_choke_on_is_refused_without_its_words(
    query: str,
) -> None:
    text = refusal({"MESHFLOW_DATABASE_URL": f"postgresql://u:p@h/d?{query}"})
    assert "MESHFLOW_DATABASE_URL" in text
    assert PASSWORD not in text
    assert "server_settings" not in text


def test_two_spellings_of_the_ttl_are_refused() -> None:
    text = refusal({"MESHFLOW_RESULT_TTL": "1h", "MESHFLOW_RESULT_TTL_SECONDS": "3600"})
    assert "both set" in text


@pytest.mark.parametrize("name", [PREFIX + n for n in SECRET_NAMES] + [*KEY_NAMES])
class TestSecretFiles:
    def test_a_secret_and_its_file_twin_are_refused_together(
        self, name: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "s"
        file.write_text(URL)
        text = refusal({name: URL, f"{name}_FILE": str(file)})
        assert f"{name} and {name}_FILE are both set" in text
        assert PASSWORD not in text

    def test_a_missing_file_is_refused_by_name_without_its_path(self, name: str) -> None:
        text = refusal({f"{name}_FILE": f"/nowhere/{PASSWORD}"})
        assert f"{name}_FILE" in text
        assert PASSWORD not in text

    def test_a_directory_or_bytes_that_are_no_text_are_refused(
        self, name: str, tmp_path: Path
    ) -> None:
        broken = tmp_path / "b"
        broken.write_bytes(PASSWORD.encode() + b"\xff\xfe")
        for path in (tmp_path, broken):
            text = refusal({f"{name}_FILE": str(path)})
            assert f"{name}_FILE" in text
            assert PASSWORD not in text

    def test_a_file_of_many_megabytes_is_refused(self, name: str, tmp_path: Path) -> None:
        big = tmp_path / "big"
        big.write_bytes(b"x" * ((1 << 20) + 1))
        assert "too large" in refusal({f"{name}_FILE": str(big)})


def test_a_secret_from_a_file_loses_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(URL + "\n")
    settings = read({"MESHFLOW_OWNER_DATABASE_URL_FILE": str(file)})
    assert settings.owner_database_url is not None
    assert settings.owner_database_url.reveal() == URL
    assert (
        "MESHFLOW_OWNER_DATABASE_URL",
        "(hidden)",
        "file in MESHFLOW_OWNER_DATABASE_URL_FILE",
    ) in (settings.describe())


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("\n")
    assert "empty" in refusal({"MESHFLOW_DATABASE_URL_FILE": str(file)})


def test_the_file_of_api_keys_is_kept_as_a_path(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("")
    settings = read({"MESHFLOW_API_KEYS_FILE": str(file)})
    assert settings.api_keys_file == file
    assert settings.api_keys is None


def test_a_provider_key_makes_anthropic_the_default(tmp_path: Path) -> None:
    assert read({"ANTHROPIC_API_KEY": "sk-ant-1"}).models.chosen is ProviderName.ANTHROPIC
    assert read({"ANTHROPIC_API_KEY": ""}).models.chosen is ProviderName.OFFLINE
    file = tmp_path / "k"
    file.write_text("sk-ant-2\n")
    settings = read({"ANTHROPIC_API_KEY_FILE": str(file), "ANTHROPIC_API_KEY": ""})
    assert settings.models.chosen is ProviderName.ANTHROPIC
    assert settings.models.anthropic_key is not None
    assert settings.models.anthropic_key.reveal() == "sk-ant-2"
    both = {"ANTHROPIC_API_KEY": "sk-ant-1", "MESHFLOW_PROVIDER": "offline"}
    assert read(both).models.chosen is ProviderName.OFFLINE


@pytest.mark.parametrize(
    ("provider", "needs"),
    [
        ("anthropic", "ANTHROPIC_API_KEY"),
        ("openai", "OPENAI_API_KEY"),
        ("gemini", "GEMINI_API_KEY"),
        ("bedrock", "MESHFLOW_BEDROCK_REGION"),
    ],
)
def test_a_provider_without_what_it_needs_is_refused(provider: str, needs: str) -> None:
    assert needs in refusal({"MESHFLOW_PROVIDER": provider})


def test_other_keys_choose_no_provider() -> None:
    keys = {"OPENAI_API_KEY": "a", "GEMINI_API_KEY": "b", "MESHFLOW_BEDROCK_REGION": "us-east-1"}
    assert read(keys).models.chosen is ProviderName.OFFLINE
    assert read({**keys, "MESHFLOW_PROVIDER": "gemini"}).models.chosen is ProviderName.GEMINI


def test_a_provider_key_that_could_not_be_a_header_is_refused() -> None:
    assert PASSWORD not in refusal({"ANTHROPIC_API_KEY": f"{PASSWORD}\nX-Evil: 1"})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("MESHFLOW_API_KEY", "MESHFLOW_API_KEYS"),
        ("MESHFLOW_DATABSE_URL", "MESHFLOW_DATABASE_URL"),
        ("MESHFLOW_WORKSPACE", "MESHFLOW_WORKSPACE_DIR"),
        ("MESHFLOW_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        ("MESHFLOW_PROVIDER_FILE", "MESHFLOW_PROVIDER"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name: str, near: str) -> None:
    text = refusal({name: PASSWORD})
    assert text.startswith(f"{name} is not a setting")
    assert f"did you mean {near}?" in text
    assert PASSWORD not in text


def test_an_unknown_name_that_is_near_to_nothing_is_refused_without_a_guess() -> None:
    assert refusal({"MESHFLOW_ZZQX": "1"}) == "MESHFLOW_ZZQX is not a setting"


SERVICE_LINKS = {
    "MESHFLOW_SERVICE_HOST": "10.0.0.1",
    "MESHFLOW_SERVICE_PORT": "80",
    "MESHFLOW_SERVICE_PORT_HTTP": "80",
    "MESHFLOW_PORT": "tcp://10.0.0.1:80",
    "MESHFLOW_PORT_80_TCP": "tcp://10.0.0.1:80",
    "MESHFLOW_PORT_80_TCP_PROTO": "tcp",
    "MESHFLOW_PORT_80_TCP_PORT": "80",
    "MESHFLOW_PORT_80_TCP_ADDR": "10.0.0.1",
    "MESHFLOW_DB_SERVICE_HOST": "10.0.0.2",
    "MESHFLOW_DB_SERVICE_PORT_PG": "5432",
    "MESHFLOW_DB_PORT": "tcp://10.0.0.2:5432",
    "MESHFLOW_DB_PORT_5432_TCP_ADDR": "10.0.0.2",
}


def test_names_made_by_kubernetes_service_links_are_ignored_and_told() -> None:
    settings = read(SERVICE_LINKS)
    assert settings.ignored_names == tuple(sorted(SERVICE_LINKS))
    assert settings.port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MESHFLOW_DB_PORT", "5432"),
        ("MESHFLOW_SERVICE_HOSTS", "10.0.0.1"),
        ("MESHFLOW_PORT_HTTP", "tcp://10.0.0.1:80"),
        ("MESHFLOW_PORT_80_TCP_X", "1"),
    ],
)
def test_names_that_only_resemble_service_links_are_refused(name: str, value: str) -> None:
    assert name in refusal({name: value})


def test_names_of_other_programs_are_none_of_our_business() -> None:
    assert read({"MESH_X": "1", "meshflow_api_keys": "1"}).ignored_names == ()


def test_describe_names_every_known_setting_and_hides_every_secret(tmp_path: Path) -> None:
    file = tmp_path / PASSWORD
    file.write_text(PASSWORD)
    settings = read(
        {
            "MESHFLOW_API_KEYS_FILE": str(file),
            "MESHFLOW_DATABASE_URL": URL,
            "ANTHROPIC_API_KEY_FILE": str(file),
            "MESHFLOW_PORT": "81",
        }
    )
    lines = {name: (value, source) for name, value, source in settings.describe()}
    twins = {f"{PREFIX}{name}_FILE" for name in SECRET_NAMES}
    foreign = {PREFIX + name for name in FOREIGN_NAMES}
    expected = (KNOWN - twins - foreign - {"MESHFLOW_RESULT_TTL"}) | {*KEY_NAMES}
    assert set(lines) == expected
    assert lines["MESHFLOW_DATABASE_URL"] == ("(hidden)", "environment")
    assert lines["MESHFLOW_AUDIT_DATABASE_URL"] == ("(not set)", "default")
    assert lines["MESHFLOW_PORT"] == ("81", "environment")
    assert lines["MESHFLOW_LOG_LEVEL"] == ("info", "default")
    for shown in (repr(settings.describe()), repr(lines)):
        assert PASSWORD not in shown


def test_settings_are_frozen_and_their_repr_holds_no_secret() -> None:
    settings = read(
        {"MESHFLOW_API_KEYS": PASSWORD, "MESHFLOW_DATABASE_URL": URL, "ANTHROPIC_API_KEY": PASSWORD}
    )
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in str(dataclasses.asdict(settings))
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]  # the point of the test


def test_a_secret_shows_itself_to_nobody_but_reveal(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(PASSWORD)
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("%s %r", secret, secret)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>60}",
        f"{secret!r}",
        "%s %r" % (secret, secret),  # noqa: UP031 - the old way must not show it either
        repr([secret]),
        repr(copy.deepcopy(secret)),
        json.dumps({"s": secret}, default=str),
        caplog.text,
    ]
    for text in shown:
        assert PASSWORD not in text
        assert "(hidden)" in text
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError) as caught:
        json.dumps(secret)
    assert PASSWORD not in str(caught.value)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret.reveal() == PASSWORD


@given(
    name=st.sampled_from(sorted(KNOWN - {"MESHFLOW_TEST_DATABASE_URL"})),
    noise=st.text(max_size=12).filter(lambda s: "\0" not in s),
)
def test_no_refusal_ever_echoes_a_value(name: str, noise: str) -> None:
    value = f"{noise}{PASSWORD}{noise}"
    shown = outcome({name: value})
    if name.removeprefix(PREFIX) in SECRET_NAMES or shown.startswith("refused"):
        assert PASSWORD not in shown


def outcome(environ: dict[str, str]) -> str:
    try:
        settings = read(environ)
    except ConfigurationError as error:
        return f"refused: {error}"
    return f"accepted: {settings!r} {settings.describe()!r}"


@pytest.mark.parametrize("name", ["Example.com", "a b", "a//b", "/a", "a/", "a\\nb", "a+b", "é"])
def test_a_deployment_has_a_name_that_a_log_can_bear(name: str) -> None:
    with pytest.raises(ConfigurationError, match="MESHFLOW_DEPLOYMENT"):
        read({"MESHFLOW_DEPLOYMENT": name})
