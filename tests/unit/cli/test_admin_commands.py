from argparse import Namespace
from pathlib import Path

import pytest

from app.cli.admin_commands import make_key, print_config
from app.cli.database_setup import driver_url
from app.cli.invocation import Invocation
from app.domain.errors import ConfigurationError
from app.domain.run import Scope
from app.keys.key_ring import KeyRing
from app.settings import Secret

NOBODY = Invocation(environ={}, uid=1000, home=Path("/nowhere"))


@pytest.mark.parametrize(
    ("tenant", "scopes", "expected"),
    [
        (None, None, ("default", frozenset(Scope))),
        ("acme", None, ("acme", frozenset(Scope))),
        ("acme", "run+audit", ("acme", frozenset({Scope.RUN, Scope.AUDIT}))),
        (None, "run", ("default", frozenset({Scope.RUN}))),
    ],
)
def test_a_new_key_comes_with_an_item_that_holds_only_its_digest(
    tenant: str | None,
    scopes: str | None,
    expected: tuple[str, frozenset[Scope]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert make_key(NOBODY, Namespace(tenant=tenant, scopes=scopes)) == 0
    (_, key), (_, item) = (line.split() for line in capsys.readouterr().out.splitlines())
    assert key not in item
    grant = KeyRing.parse(item).find(key)
    assert grant is not None
    assert (grant.tenant, grant.scopes) == expected


@pytest.mark.parametrize(
    ("tenant", "scopes"),
    [
        ("acme", "fly"),
        ("Acme", None),
        ("run", None),
        ("a,b", None),
        ("", None),  # a variable of the shell that was not set: not every right in `default`
        ("acme", ""),
    ],
)
def test_no_item_is_printed_that_a_server_would_refuse(
    tenant: str, scopes: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError):
        make_key(NOBODY, Namespace(tenant=tenant, scopes=scopes))
    assert capsys.readouterr().out == ""


def test_config_shows_every_setting_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    secrets = {
        "MESHFLOW_API_KEYS": "config-key-000000000000000000001",
        "MESHFLOW_DATABASE_URL": "postgresql://mf_app:config-word@db/meshflow",
        "ANTHROPIC_API_KEY": "sk-config-made-up",
    }
    environ = {**secrets, "MESHFLOW_PORT": "9000", "MESHFLOW_KEY_FILE": "/nowhere/key"}
    assert (
        print_config(Invocation(environ=environ, uid=1000, home=Path("/nowhere")), Namespace()) == 0
    )
    shown = capsys.readouterr().out
    assert "config-word" not in shown
    assert not any(value in shown for value in secrets.values())
    lines = {line.split()[0]: line.split()[1:] for line in shown.splitlines()}
    assert lines["MESHFLOW_API_KEYS"] == ["(hidden)", "environment"]
    assert lines["MESHFLOW_PORT"] == ["9000", "environment"]
    assert lines["MESHFLOW_MAX_BODY_BYTES"] == ["1048576", "default"]


@pytest.mark.parametrize(
    ("given", "driven"),
    [
        ("postgres://u:p@db/m", "postgresql+asyncpg://u:p@db/m"),
        (
            "postgresql://u:p%3F@db/m?sslmode=require",
            "postgresql+asyncpg://u:p%3F@db/m?ssl=require",
        ),
        (
            "postgresql+asyncpg://u@/m?host=/run/a%20b",
            "postgresql+asyncpg://u@/m?host=%2Frun%2Fa%20b",
        ),
    ],
)
def test_a_database_url_is_told_in_the_words_of_the_driver(given: str, driven: str) -> None:
    assert driver_url(Secret(given)) == driven
