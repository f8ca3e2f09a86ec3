"""What the operator says of the web tool holds in a whole run, and in what the server logs."""

import logging
from pathlib import Path

import pytest

from app.cli.serve import configure_logging
from app.providers.scripted import ScriptedProvider
from app.wiring import Overrides
from tests.support.api_matrix import calls, finished, says
from tests.support.databases import Roles
from tests.support.egress_field import field_beside
from tests.support.egress_tls import field_tls
from tests.support.live_server import live_server, settings_for

SECRET = "tok-5d1f0c3b7a9e2468"


@pytest.mark.parametrize(("denied", "reached"), [("", 1), ("93.184.216.0/24", 0)])
def test_a_denied_network_is_not_dialled(roles: Roles, denied: str, reached: int) -> None:
    reply = calls("http_fetch", url="http://www.allowed.example/")
    provider = ScriptedProvider([reply, says("Done.")])
    with field_beside(*field_tls()) as field:
        overrides = Overrides(
            providers={"scripted": provider}, default_model="scripted", egress=field.parts
        )
        more = {"MESHFLOW_EGRESS_DENIED_NETWORKS": denied} if denied else {}
        with (
            live_server(
                roles, overrides, MESHFLOW_FETCH_HOSTS="www.allowed.example", **more
            ) as live,
            live.client() as client,
        ):
            assert (
                finished(client, {"task": "Fetch http://www.allowed.example/ for me."})["status"]
                == "succeeded"
            )
        assert len(field.dial.dialled) == reached


def test_the_log_of_a_server_knows_the_credentials_of_tools(
    roles: Roles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bindings = tmp_path / "bindings"
    bindings.write_text(f"http_fetch www.allowed.example Authorization: Bearer {SECRET}\n")
    settings = settings_for(tmp_path, roles, MESHFLOW_TOOL_CREDENTIALS_FILE=str(bindings))
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure_logging(settings)
        logging.getLogger("planted").error("a library says %s of itself", SECRET)
    finally:
        root.handlers, root.level = handlers, level
    told = capsys.readouterr().err
    assert "of itself" in told
    assert SECRET not in told
