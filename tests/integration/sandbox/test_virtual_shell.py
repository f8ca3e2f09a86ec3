"""The virtual shell in its worker: its words and end come back whole; what it sees is little."""

import asyncio
from dataclasses import replace

import pytest

from app.sandbox.execution import Argv, EndedBy, EngineName, ExecResult, ExecStatus
from tests.support.escape_scene import held, open_directory, request_for, runner_for

SHELL = EngineName.VIRTUAL_SHELL


def _end(*commands: str, seconds: float = 10.0) -> list[ExecResult]:
    """How commands end, one after the other in one workspace."""

    async def go() -> list[ExecResult]:
        runner = runner_for()
        try:
            with open_directory() as base, held(base) as directory:
                asked = [
                    request_for(text, directory, engine=SHELL, wall_seconds=seconds)
                    for text in commands
                ]
                return [await runner.run(request) for request in asked]
        finally:
            await runner.close()

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("command", "stdout"),
    [
        ("printf 'a\\xff\\xfeb'", b"a\xff\xfeb"),
        ("echo x; printf '\\xff'; echo y; echo z", b"x\n\xffy\nz\n"),
        ("head -c 70000 /dev/zero", b"\0" * 70_000),
        ("echo '\u00e9\u4e16'", "\u00e9\u4e16\n".encode()),
        ("printf '\\xe4' > a; cat a a", b"\xe4\xe4"),
        ("printf 'no end'", b"no end"),
    ],
)
def test_what_it_writes_comes_back_byte_for_byte(command: str, stdout: bytes) -> None:
    (told,) = _end(command)
    assert (told.status, told.stdout, told.stderr) == (ExecStatus.OK, stdout, b"")


def test_the_code_and_both_streams_are_its_own() -> None:
    told, wrong = _end("echo out; echo err >&2; exit 7", "if; then")
    assert (told.status, told.exit_code) == (ExecStatus.ERROR, 7)
    assert (told.stdout, told.stderr) == (b"out\n", b"err\n")
    assert wrong.status is ExecStatus.ERROR
    assert b"error" in wrong.stderr


def test_what_it_wrote_before_its_own_limit_is_told_and_the_limit_named() -> None:
    late, busy, binary = _end(
        "echo before; sleep 60",
        "echo before; while :; do :; done",
        "echo before; printf '\\xff'; echo more; sleep 60",
        seconds=5.0,  # its own limit comes half a second before the worker's
    )
    assert (late.status, late.stdout) == (ExecStatus.ERROR, b"before\n")
    assert b"timeout" in late.stderr
    assert (busy.status, busy.stdout) == (ExecStatus.ERROR, b"before\n")
    assert b"command count" in busy.stderr
    assert binary.stdout.startswith(b"before\n")
    assert binary.stdout.endswith(b"more\n")


def test_too_much_output_ends_it_as_it_ends_any_program() -> None:
    (told,) = _end("head -c 1000000 /dev/zero;" * 3)
    assert (told.status, told.ended_by) == (ExecStatus.KILLED, EndedBy.OUTPUT_LIMIT)
    assert told.stdout_truncated
    assert len(told.stdout) == 1024 * 1024


def test_its_environment_holds_nothing_of_the_machine() -> None:
    (told,) = _end("env | sort; whoami; hostname; pwd; ls -A")
    assert (
        told.stdout == b"HOME=/workspace\nPWD=/workspace\nUSER=agent\nagent\nsandbox\n/workspace\n"
    )


def test_only_files_of_the_workspace_outlive_a_call() -> None:
    kept, seen = _end(
        "mkdir -p d; echo one > d/a; echo two > /tmp/b; x=3; f() { :; }; cd d",
        'cat d/a; cat /tmp/b; echo "[$x]"; pwd; f',
    )
    assert kept.status is ExecStatus.OK
    assert seen.stdout == b"one\n[]\n/workspace\n"
    assert b"/tmp/b" in seen.stderr
    assert seen.exit_code == 127


def test_it_takes_no_words_and_no_other_engine_takes_its_text() -> None:
    async def go() -> tuple[ExecResult, ExecResult]:
        runner = runner_for(executable=("/usr/bin/cat",))
        try:
            with open_directory() as base, held(base) as directory:
                text = request_for("echo x", directory, engine=EngineName.EXEC)
                words = replace(text, engine=SHELL, program=Argv(words=("echo", "x")))
                return await runner.run(words), await runner.run(text)
        finally:
            await runner.close()

    for told in asyncio.run(go()):
        assert (told.status, told.exit_code, told.stdout) == (ExecStatus.ERROR, 126, b"")
