"""The embedded server lives exactly as long as somebody uses it, whatever dies on the way."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError
from app.embedded.postgres_server import answers, start_embedded_postgres
from app.embedded.postgres_watchdog import Watch, clear_stale_locks
from app.embedded.server_account import choose_server_account
from tests.integration.embedded.server_scene import (
    Holders,
    connect,
    plain_user_runner,
    processes_of,
    wait_for,
    watchdogs_of,
)


def is_gone(state_dir: Path) -> None:
    wait_for(lambda: not processes_of(state_dir), what="every process of the server to end")


@contextlib.contextmanager
def bystander() -> Iterator[int]:
    """A live process of the server's user that is no server: the owner of a recycled pid."""
    account = choose_server_account()
    with subprocess.Popen(
        ["/bin/sleep", "600"],
        user=account.switch_user,
        group=account.switch_group,
        extra_groups=account.switch_groups,
        cwd="/",
    ) as process:
        try:
            yield process.pid
            assert process.poll() is None, "somebody else's process was ended"
        finally:
            process.kill()


@pytest.mark.anyio
async def test_data_and_passwords_survive_a_stop_and_a_second_start(state_dir: Path) -> None:
    first = start_embedded_postgres(state_dir, durable=False)
    connection = await connect(first.owner_url)
    await connection.execute("CREATE TABLE kept (x int)")
    await connection.close()
    first.stop()
    first.stop()
    assert processes_of(state_dir) == {}
    second = start_embedded_postgres(state_dir, durable=False)
    connection = await connect(second.owner_url)
    assert await connection.fetchval("SELECT count(*) FROM kept") == 0
    await connection.close()
    second.stop()
    assert (first.owner_url, first.app_url) == (second.owner_url, second.app_url)
    assert processes_of(state_dir) == {}


@pytest.mark.anyio
async def test_a_user_without_power_gets_a_server_in_its_home(
    playground: Path, holders: Holders
) -> None:
    runner = plain_user_runner(playground)
    state = (runner.home or playground) / "new" / "state"
    holder = holders.start(state, runner=runner)
    told = holder.told()
    assert "error" not in told, told
    connection = await connect(told["app_url"])
    assert await connection.fetchval("SELECT current_user") == "mf_app"
    await connection.close()
    assert state.stat().st_mode & 0o777 == 0o700
    again = holders.start(state, runner=runner)
    assert again.told()["server_pid"] == told["server_pid"]
    holder.kill()
    assert answers(Path(told["socket_dir"]))
    again.kill()
    is_gone(state)


def test_a_killed_parent_leaves_no_server_behind(state_dir: Path, holders: Holders) -> None:
    holder = holders.start(state_dir)
    told = holder.told()
    assert int(told["server_pid"]) in processes_of(state_dir)
    holder.kill()
    is_gone(state_dir)


def test_the_server_stays_until_the_last_of_its_users_is_gone(
    state_dir: Path, holders: Holders
) -> None:
    mine = start_embedded_postgres(state_dir, durable=False)
    pid = mine.server_pid
    other = holders.start(state_dir)
    assert other.told()["server_pid"] == str(pid)
    mine.stop()
    assert answers(mine.socket_dir)
    again = start_embedded_postgres(state_dir, durable=False)
    assert again.server_pid == pid
    other.kill()
    assert answers(again.socket_dir)
    again.stop()
    assert processes_of(state_dir) == {}


def test_starts_at_once_from_nothing_give_one_server(playground: Path, holders: Holders) -> None:
    state = playground / "fresh"
    told = [holder.told() for holder in [holders.start(state) for _ in range(4)]]
    assert [words for words in told if "error" in words] == []
    assert len({words["server_pid"] for words in told}) == 1
    assert len({words["owner_url"] for words in told}) == 1
    assert len(watchdogs_of(state)) == 1


def test_two_state_directories_are_two_servers(
    state_dir: Path, playground: Path, holders: Holders
) -> None:
    subprocess.run(["cp", "-a", str(state_dir), str(playground / "other")], check=True)
    one = holders.start(state_dir).told()
    other_holder = holders.start(playground / "other")
    other = other_holder.told()
    assert one["server_pid"] != other["server_pid"]
    assert one["socket_dir"] != other["socket_dir"]
    other_holder.kill()
    is_gone(playground / "other")
    assert answers(Path(one["socket_dir"]))


@pytest.mark.anyio
async def test_a_killed_postmaster_comes_back_on_the_same_socket(state_dir: Path) -> None:
    server = start_embedded_postgres(state_dir, durable=False)
    for _ in range(3):
        killed = server.server_pid
        os.kill(killed, signal.SIGKILL)
        wait_for(
            lambda killed=killed: (
                server.server_pid not in (0, killed)  # type: ignore[misc]  # the loop's pid
                and answers(server.socket_dir)
            ),
            what="the server to come back",
        )
        connection = await connect(server.app_url)
        await connection.close()
    server.stop()
    assert processes_of(state_dir) == {}


@pytest.mark.anyio
async def test_a_killed_watchdog_takes_its_server_along_and_a_start_brings_both_back(
    state_dir: Path,
) -> None:
    server = start_embedded_postgres(state_dir, durable=False)
    (watchdog,) = watchdogs_of(state_dir)
    os.kill(watchdog, signal.SIGKILL)
    is_gone(state_dir)
    again = start_embedded_postgres(state_dir, durable=False)
    assert answers(again.socket_dir)
    assert len(watchdogs_of(state_dir)) == 1
    connection = await connect(server.app_url)
    await connection.close()
    server.stop()
    assert answers(again.socket_dir)
    again.stop()
    assert processes_of(state_dir) == {}


def test_a_server_left_by_a_dead_watchdog_is_stopped_and_not_taken_for_stale(
    state_dir: Path,
) -> None:
    server = start_embedded_postgres(state_dir, durable=False)
    left = server.server_pid
    clear_stale_locks(
        Watch(
            users_fd=-1,
            data_dir=server.data_dir,
            socket_lock=server.socket_dir / ".s.PGSQL.5432.lock",
            server_argv=(),
        )
    )
    assert left not in processes_of(state_dir)
    server.stop()


def test_polite_signals_do_not_take_the_database_from_a_draining_service(state_dir: Path) -> None:
    server = start_embedded_postgres(state_dir, durable=False)
    (watchdog,) = watchdogs_of(state_dir)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(watchdog, number)
    killed = server.server_pid
    os.kill(killed, signal.SIGTERM)
    wait_for(
        lambda: server.server_pid not in (0, killed) and answers(server.socket_dir),
        what="the server to come back",
    )
    assert watchdogs_of(state_dir) == [watchdog]
    server.stop()
    assert processes_of(state_dir) == {}


def test_lock_files_with_a_recycled_pid_do_not_stop_a_start(state_dir: Path) -> None:
    with bystander() as pid:
        server = start_embedded_postgres(state_dir, durable=False)
        pid_file = server.data_dir / "postmaster.pid"
        lock_file = server.socket_dir / ".s.PGSQL.5432.lock"
        kept = {path: path.read_text().splitlines() for path in (pid_file, lock_file)}
        server.stop()
        for path, lines in kept.items():
            path.write_text("\n".join([str(pid), *lines[1:]]) + "\n")
            shutil.chown(path, choose_server_account().uid, choose_server_account().gid)
        again = start_embedded_postgres(state_dir, durable=False)
        assert again.server_pid != pid
        assert answers(again.socket_dir)
        again.stop()


@pytest.mark.parametrize("content", ["", "999999\n", "not a number\n"])
def test_torn_or_dead_lock_files_do_not_stop_a_start(state_dir: Path, content: str) -> None:
    path = state_dir / "pg18" / "postmaster.pid"
    path.write_text(content)
    shutil.chown(path, choose_server_account().uid, choose_server_account().gid)
    server = start_embedded_postgres(state_dir, durable=False)
    assert answers(server.socket_dir)
    server.stop()


def test_a_start_killed_in_the_middle_of_initdb_leaves_a_state_that_starts(
    playground: Path, holders: Holders
) -> None:
    state = playground / "fresh"
    holder = holders.start(state)
    wait_for(lambda: any(state.glob("init-*/data/PG_VERSION")), what="initdb to be at work")
    holder.kill()
    server = start_embedded_postgres(state, durable=False)
    assert answers(server.socket_dir)
    server.stop()
    is_gone(state)
    assert [path.name for path in state.glob("init-*/data/PG_VERSION")] == []


def test_a_durable_user_does_not_join_a_server_that_may_lose_data(state_dir: Path) -> None:
    loose = start_embedded_postgres(state_dir, durable=False)
    with pytest.raises(ConfigurationError, match="without durability"):
        start_embedded_postgres(state_dir, durable=True)
    loose.stop()
    assert processes_of(state_dir) == {}


@pytest.mark.anyio
async def test_durability_is_on_unless_a_test_turns_it_off(state_dir: Path) -> None:
    for durable, expected in ((True, "on"), (False, "off")):
        server = start_embedded_postgres(state_dir, durable=durable)
        connection = await connect(server.app_url)
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            assert await connection.fetchval(f"SHOW {setting}") == expected
        await connection.close()
        server.stop()


def test_the_callers_environment_stays_away_from_the_server(
    state_dir: Path, holders: Holders
) -> None:
    told = holders.start(state_dir, extra={"MESHFLOW_API_KEYS": "only-for-meshflow"}).told()
    assert "error" not in told
    environments: list[bytes] = []
    for pid in processes_of(state_dir):
        with suppress(FileNotFoundError, ProcessLookupError):  # a worker of the server that ended
            environments.append(Path(f"/proc/{pid}/environ").read_bytes())
    assert len(environments) >= 2
    assert not any(b"only-for-meshflow" in found for found in environments)
