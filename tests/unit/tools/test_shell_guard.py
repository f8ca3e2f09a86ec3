"""The first layer of the tool `shell`: what it refuses by reading, and that it only ever grows."""

from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError
from app.tools.shell_guard import FILE_NAME, load_shell_refusals, refused

SHIPPED = load_shell_refusals(None)


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf /",
        "rm -fr .",
        "rm -r -f x",
        "rm --recursive --force x",
        "/bin/rm -rf x",
        "sudo ls",
        "chmod +x f",
        "curl http://example.org",
        "wget example.org",
        "cat f | sh",
        "cat f | bash -s",
    ],
)
def test_the_patterns_of_the_policy_are_refused(command: str) -> None:
    assert refused(command, SHIPPED) is not None


@pytest.mark.parametrize("command", ["echo hi", "ls -l | sort", "rm f", "rm -r d", "rm -f f"])
def test_everyday_commands_are_not_refused(command: str) -> None:
    assert refused(command, SHIPPED) is None


def test_operators_add_and_take_nothing_away(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('names = ["ls"]\nvariables = ["LANG"]\n')
    refusals = load_shell_refusals(tmp_path)
    assert refusals.names == SHIPPED.names | {"ls"}
    assert refusals.variables == SHIPPED.variables | {"LANG"}
    assert (refusals.shells, refusals.flags) == (SHIPPED.shells, SHIPPED.flags)
    assert refused("ls -l", refusals) is not None
    assert refused("sudo id", refusals) is not None
    (tmp_path / FILE_NAME).write_text("names = []\nshells = []\n")
    assert load_shell_refusals(tmp_path) == SHIPPED


@pytest.mark.parametrize(
    "text", ["allow = ['ls']", "names = 1", "names = [1]", "names = [", "\x00", "x = " + "1" * 9]
)
def test_a_file_that_is_not_a_list_of_refusals_refuses_to_start(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ConfigurationError, match=FILE_NAME):
        load_shell_refusals(tmp_path)
