"""An erased run leaves no file, whatever its programs made of their directories."""

import os
from pathlib import Path

import pytest

from app.sandbox.set_aside import PLACE
from app.sandbox.workspace import open_workspace_root
from app.sandbox.workspace_quota import wipe
from app.sandbox.workspace_removal import remove_workspace
from tests.support.escape_scene import open_directory, worker_account

TENANT, RUN, OTHER = "a" * 32, "b" * 32, "c" * 32


def _filled(base: Path) -> None:
    """Two runs of a tenant and one of another, each with a file and with a part set aside."""
    root = open_workspace_root(base, forbidden=[])
    for tenant, run in ((TENANT, RUN), (TENANT, OTHER), (OTHER, RUN)):
        workspace = root.for_run(tenant, run)
        workspace.write_file("deep/flood.txt", b"x")
        with workspace.lend() as flooded:
            workspace.renew(flooded)
        workspace.write_file("after.txt", b"x")
        workspace.close()
    root.close()


def _left(base: Path) -> set[str]:
    found = {str(path.relative_to(base)) for path in base.glob("*/*")}
    return {name[: len(PLACE) + 66] for name in found}


def test_a_run_goes_with_what_was_set_aside_of_it(tmp_path: Path) -> None:
    _filled(tmp_path)
    remove_workspace(tmp_path, TENANT, RUN)
    assert _left(tmp_path) == {
        f"{TENANT}/{OTHER}",
        f"{OTHER}/{RUN}",
        f"{PLACE}/{TENANT}.{OTHER}",
        f"{PLACE}/{OTHER}.{RUN}",
    }


def test_a_tenant_goes_with_what_was_set_aside_of_all_its_runs(tmp_path: Path) -> None:
    _filled(tmp_path)
    remove_workspace(tmp_path, TENANT, None)
    assert _left(tmp_path) == {f"{OTHER}/{RUN}", f"{PLACE}/{OTHER}.{RUN}"}
    assert not (tmp_path / TENANT).exists()


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    remove_workspace(tmp_path, TENANT, RUN)
    remove_workspace(tmp_path, TENANT, None)


@pytest.mark.parametrize("name", ["", "..", "a" * 31, "A" * 32, f"{'a' * 32}/..", "*"])
def test_only_ids_name_a_workspace(tmp_path: Path, name: str) -> None:
    for pair in ((name, RUN), (name, None), (TENANT, name)):
        with pytest.raises(ValueError, match="named by ids"):
            remove_workspace(tmp_path, *pair)


def test_a_link_in_the_place_of_a_workspace_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (tmp_path / TENANT).mkdir()
    (tmp_path / TENANT / RUN).symlink_to(outside)
    with pytest.raises(OSError, match="Not a directory"):
        remove_workspace(tmp_path, TENANT, RUN)
    assert (outside / "kept").exists()


def _in_another_account(base: Path) -> int:
    """Make what its own account cannot read, and remove it; the exit code says what is left."""
    closed = base / TENANT / RUN / "closed"
    for directory in (closed, closed / "below", closed / "empty"):
        directory.mkdir(parents=True)
        (directory / "file").touch()
    (closed / "empty" / "file").unlink()
    for directory in (closed / "below", closed / "empty", closed):
        directory.chmod(0o300 if directory.name != "empty" else 0)
    try:
        remove_workspace(base, TENANT, RUN)
    except OSError:
        return 1
    closed.parent.mkdir()
    closed.mkdir()
    (closed / "below").mkdir()
    (closed / "below" / "file").touch()
    for directory in (closed / "below", closed):
        directory.chmod(0o300)
    descriptor = os.open(closed.parent, os.O_PATH)
    try:
        wipe(descriptor)
    except OSError:
        return 2
    return 3 if list(closed.parent.iterdir()) else 0


def test_what_a_program_closed_to_everybody_is_removed_too() -> None:
    with open_directory() as base:
        account = worker_account()
        if account is None:
            assert _in_another_account(base) == 0
            return
        child = os.fork()
        if child == 0:
            code = 9
            try:
                os.setgroups([])
                os.setresgid(account.gid, account.gid, account.gid)
                os.setresuid(account.uid, account.uid, account.uid)
                code = _in_another_account(base)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
