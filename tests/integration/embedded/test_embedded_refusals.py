"""Where the embedded server refuses to start, it says why and leaves everything as it was."""

import os
import stat
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError
from app.embedded.postgres_binaries import (
    choose_binaries,
    copy_for_root,
    installed_binaries,
)
from app.embedded.postgres_cluster import create_cluster, ensure_passwords
from app.embedded.postgres_server import answers, start_embedded_postgres
from app.embedded.server_account import ServerAccount, choose_server_account
from app.embedded.state_directory import fits_a_socket, open_state_directory
from tests.integration.embedded.server_scene import connect, processes_of

SOMEBODY_ELSE = ServerAccount(name="somebody", uid=54321, gid=54321, differs_from_caller=True)


def modes(directory: Path) -> dict[Path, tuple[int, int, int]]:
    return {
        path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid)
        for path in (directory, *directory.parents, *directory.rglob("*"))
    }


def test_a_place_the_servers_user_cannot_enter_is_refused_and_not_opened(playground: Path) -> None:
    home = playground / "home"
    home.mkdir(mode=0o700)
    before = modes(home)
    with pytest.raises(
        ConfigurationError, match=r"cannot enter .*/home\. No permission was changed"
    ):
        open_state_directory(home / "meshflow" / "state", SOMEBODY_ELSE)
    assert modes(home) == before


def test_a_start_in_a_closed_directory_changes_no_mode(playground: Path) -> None:
    home = playground / "home"
    home.mkdir(mode=0o700)
    before = modes(home)
    if choose_server_account().differs_from_caller:
        with pytest.raises(ConfigurationError, match="No permission was changed"):
            start_embedded_postgres(home / "state", durable=False)
    else:
        start_embedded_postgres(home / "state", durable=False).stop()
    assert {path: mode for path, mode in modes(home).items() if path in before} == before


def test_no_existing_parent_gets_another_mode_on_success(playground: Path) -> None:
    odd = playground / "odd"
    odd.mkdir()
    odd.chmod(0o751)
    start_embedded_postgres(odd / "new" / "state", durable=False).stop()
    assert stat.S_IMODE(odd.stat().st_mode) == 0o751
    expected = 0o755 if os.geteuid() == 0 else 0o700
    assert stat.S_IMODE((odd / "new").stat().st_mode) == expected


def test_a_directory_others_can_write_is_refused(playground: Path) -> None:
    shared = playground / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigurationError, match="can be written by others"):
        start_embedded_postgres(shared, durable=False)
    assert list(shared.iterdir()) == []


def test_data_of_a_major_that_is_not_installed_is_refused_with_the_way_out(
    playground: Path,
) -> None:
    data = playground / "state" / "pg14"
    data.mkdir(parents=True)
    (playground / "state").chmod(0o700)
    (data / "PG_VERSION").write_text("14\n")
    with pytest.raises(ConfigurationError, match=r"pg_dump.*restore"):
        start_embedded_postgres(playground / "state", durable=False)
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]
    assert list((playground / "state").glob("pg*")) == [data]
    assert processes_of(playground) == {}


@pytest.mark.anyio
async def test_data_stays_with_the_major_that_made_it(playground: Path) -> None:
    state = open_state_directory(playground / "state", choose_server_account())
    oldest = min(installed_binaries(), key=lambda binaries: binaries.major)
    pinned = copy_for_root(oldest, state.path) if os.geteuid() == 0 else oldest
    create_cluster(state, pinned, ensure_passwords(state, data_exists=False), durable=False)
    server = start_embedded_postgres(state.path, durable=False)
    connection = await connect(server.superuser_url())
    assert (await connection.fetchval("SHOW server_version")).startswith(f"{oldest.major}.")
    collation = await connection.fetchval(
        "SELECT datcollate FROM pg_database WHERE datname = 'meshflow'"
    )
    await connection.close()
    server.stop()
    assert collation == "C"
    assert [path.name for path in state.path.glob("pg*")] == [f"pg{oldest.major}"]


def test_a_machine_without_a_server_is_told_of_the_extra(playground: Path) -> None:
    with pytest.raises(ConfigurationError, match="extra 'embedded'"):
        choose_binaries((), pinned_major=None, state_dir=playground)


def test_lost_passwords_are_an_error_and_not_a_new_beginning(state_dir: Path) -> None:
    (state_dir / "passwords.json").unlink()
    with pytest.raises(ConfigurationError, match=r"passwords\.json"):
        start_embedded_postgres(state_dir, durable=False)
    assert not (state_dir / "passwords.json").exists()
    assert processes_of(state_dir) == {}


def test_damaged_data_is_an_error_that_names_the_log(state_dir: Path) -> None:
    (state_dir / "pg18" / "global" / "pg_control").unlink()
    with pytest.raises(ConfigurationError, match=r"postgres\.log"):
        start_embedded_postgres(state_dir, durable=False)
    assert processes_of(state_dir) == {}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["x" * 120, "a, b & c"], ids=["too long", "not plain"])
async def test_a_path_no_socket_fits_in_gets_a_private_place_elsewhere(
    playground: Path, name: str
) -> None:
    server = start_embedded_postgres(playground / name / "state", durable=False)
    assert not server.socket_dir.is_relative_to(playground)
    assert fits_a_socket(server.socket_dir)
    found = server.socket_dir.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o700, choose_server_account().uid)
    connection = await connect(server.app_url)
    await connection.close()
    server.stop()

    server.socket_dir.chmod(0o755)
    with pytest.raises(ConfigurationError, match="is not private"):
        start_embedded_postgres(playground / name / "state", durable=False)
    assert not answers(server.socket_dir)
    server.socket_dir.rmdir()
    server.socket_dir.symlink_to(playground)
    with pytest.raises(ConfigurationError, match="is not a directory"):
        start_embedded_postgres(playground / name / "state", durable=False)
    server.socket_dir.unlink()


def test_what_root_runs_is_a_copy_that_only_root_can_change(playground: Path) -> None:
    wheel = installed_binaries()[0]
    copied = copy_for_root(wheel, playground)
    if wheel.wheel_package is None:
        assert copied == wheel
        return
    assert copied.bin_dir.is_relative_to(playground)
    for path in (*playground.rglob("*"),):
        assert path.stat().st_uid == os.geteuid()
        assert path.is_symlink() or not path.stat().st_mode & 0o022
    assert stat.S_IMODE(copied.postgres.stat().st_mode) == 0o755
    made = copied.postgres.stat().st_ino
    assert copy_for_root(wheel, playground).postgres.stat().st_ino == made
