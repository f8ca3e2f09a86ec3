"""A key that asks too often is told so, by every process of the deployment; others are not."""

import re
from pathlib import Path

import httpx2
import pytest

from app.domain.errors import ConfigurationError
from app.main import create_app
from tests.support.api_matrix import problem_of
from tests.support.databases import DatabaseServer
from tests.support.live_server import live_server, settings_for

LIMIT = 40
DEFAULT = 120_000
ELSEWHERE = 50


def _configured(directory: Path, limit: object) -> str:
    (directory / "tenants").mkdir(parents=True)
    (directory / "tenants" / "acme.toml").write_text(f"max_requests_per_minute = {limit}\n")
    return str(directory)


def _until_refused(client: httpx2.Client, most: int) -> int:
    """How many requests were let through."""
    for count in range(most):
        if client.get("/v1/runs?limit=1").status_code == 429:
            return count
    return most


def test_a_key_over_its_limit_is_refused_before_anything_is_done(
    api_databases: DatabaseServer, tmp_path: Path
) -> None:
    config = _configured(tmp_path, LIMIT)
    with live_server(api_databases.new_database(), MESHFLOW_CONFIG_DIR=config) as server:
        with server.client("forms") as forms, server.client("acme") as acme:
            # A minute may end in between, and then there is more; never less.
            assert _until_refused(forms, LIMIT * 4) >= LIMIT
            refused = forms.post("/v1/runs", content=b"not even json")
            problem_of(refused, 429, "too-many-requests")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert refused.headers["ratelimit-policy"] == f'"key";q={LIMIT};w=60'
            assert refused.headers["ratelimit"].startswith('"key";r=0;t=')
            assert acme.get("/v1/runs").status_code == 200
        with server.client("other") as other:
            told = other.get("/v1/runs").headers["ratelimit-policy"]
            assert told == '"key";q=120000;w=60'
        with server.client(None) as nobody:
            assert nobody.get("/healthz").status_code == 200
            assert "ratelimit" not in nobody.get("/healthz").headers


def test_two_processes_share_one_count(api_databases: DatabaseServer) -> None:
    roles = api_databases.new_database()
    with (
        live_server(roles) as one,
        live_server(roles) as two,
        one.client("forms") as here,
        two.client("forms") as there,
    ):
        for _ in range(5):  # a minute may end between the two
            for _ in range(ELSEWHERE):
                here.get("/v1/runs?limit=1")
            if _hears_of_them(there):
                return
    raise AssertionError("the second process never heard of the first")


def _hears_of_them(client: httpx2.Client) -> bool:
    """Whether a process counts what another let through, before the minute ends."""
    own, left = 0, 61
    while True:
        told = re.fullmatch(
            r'"key";r=([0-9]+);t=([0-9]+)', client.get("/v1/runs?limit=1").headers["ratelimit"]
        )
        assert told is not None
        own += 1
        used, before, left = DEFAULT - int(told[1]), left, int(told[2])
        if used - own >= ELSEWHERE:
            return True
        if left > before + 1 and own > 1:
            return False  # another minute


def test_a_limit_that_is_none_stops_the_start(
    api_databases: DatabaseServer, tmp_path: Path
) -> None:
    for number, limit in enumerate(("0", "-1", '"many"', "true")):
        config = _configured(tmp_path / str(number), limit)
        with pytest.raises(ConfigurationError, match="max_requests_per_minute"):
            create_app(
                settings_for(tmp_path, api_databases.new_database(), MESHFLOW_CONFIG_DIR=config)
            )
