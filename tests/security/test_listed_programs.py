"""Listed programs that turn on us: they reach nothing, start nothing that is not listed, and end.

The listed program is a perl, which no operator could list: it does whatever it is told.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.confinement import MOST_PROCESSES
from app.sandbox.execution import (
    Argv,
    EndedBy,
    EngineName,
    ExecLimits,
    ExecRequest,
    ExecResult,
    ExecStatus,
)
from app.sandbox.tool_runner import ToolRunner
from tests.support.escape_scene import (
    RUN,
    TENANT,
    Attempt,
    EscapeScene,
    escape_scene,
    held,
    open_directory,
    runner_for,
)
from tests.support.processes import Seen, beneath, is_gone

PERL, CAT = "/usr/bin/perl", "/usr/bin/cat"
PRINTS, SAYS, VICTIM = {"kind": "prints"}, {"kind": "says"}, {"kind": "victim"}
MADE = {"kind": "file", "path": "{OUT}/made"}
_CONNECT = (
    "use Socket; socket(S,PF_INET,SOCK_STREAM,0); "
    'connect(S,pack_sockaddr_in({TCP},inet_aton("127.0.0.1"))); '
)
_DATAGRAM = (
    'use Socket; socket(S,PF_INET,SOCK_DGRAM,0); send S,"{TOKEN}",0,'
    'pack_sockaddr_in({UDP},inet_aton("127.0.0.1"))'
)
_SCRIPT = 'open(F,">s"); print F "#!/bin/sh\\necho did-{TOKEN}\\n"; close F; chmod 0700,"s"; '
LISTENER = {"kind": "listener"}
_UNIX = 'use Socket; socket(S,PF_UNIX,SOCK_STREAM,0); connect(S,pack_sockaddr_un("{UNIX}")); '
PAYLOADS: dict[str, tuple[str, dict[str, str]]] = {
    "read": ('open(F,"{SECRET}"); print <F>', PRINTS),
    "read-other": ('open(F,"{OTHER}/secret.txt"); print <F>', PRINTS),
    "read-dots": ('open(F,"../../../secret.txt"); print <F>', PRINTS),
    "read-symlink": ('symlink "{SECRET}","x"; open(F,"x"); print <F>', PRINTS),
    "read-hardlink": ('link "{SECRET}","x"; open(F,"x"); print <F>', PRINTS),
    "read-proc-root": ('open(F,"/proc/self/root{SECRET}"); print <F>', PRINTS),
    "environ": ('open(F,"/proc/{VICTIM}/environ"); print <F>', PRINTS),
    "write": ('open(F,">{OUT}/made"); print F "x"', MADE),
    "mkdir": ('mkdir "{OUT}/made"', MADE),
    "rename": ('open(F,">a"); rename "a","{OUT}/made"', MADE),
    "unlink": ('unlink "{KEPT}"', {"kind": "gone", "path": "{KEPT}"}),
    "truncate": ('truncate "{KEPT}",0', {"kind": "changed", "path": "{KEPT}"}),
    "chmod": ('chmod 0777,"{KEPT}"', {"kind": "changed", "path": "{KEPT}"}),
    "utime": ('utime 1,1,"{KEPT}"', {"kind": "changed", "path": "{KEPT}"}),
    "tcp": (_CONNECT + 'syswrite S,"{TOKEN}"', LISTENER),
    "tcp-child": (
        "if(!fork){" + _CONNECT + 'syswrite S,"{TOKEN}"; exit} wait',
        {"kind": "listener"},
    ),
    "udp": (_DATAGRAM, LISTENER),
    "unix": (_UNIX + 'syswrite S,"{TOKEN}"', LISTENER),
    "kill": ("kill 9,{VICTIM}", VICTIM),
    "kill-group": ("kill -9,{VICTIM}", VICTIM),
    "stop": ("kill 'STOP',{VICTIM}", VICTIM),
    "renice": ("setpriority 0,{VICTIM},15", VICTIM),
    "shell": ('exec "/bin/sh","-c","echo did-{TOKEN}"', SAYS),
    "shell-child": ('system "echo did-{TOKEN}; true"', SAYS),
    "unlisted": ('exec "/usr/bin/printf","did-{TOKEN}"', SAYS),
    "own-script": (_SCRIPT + 'exec "./s"', SAYS),
    "loader": (
        'exec glob("/lib*/ld-linux-*.so*"),"/usr/bin/printf","did-{TOKEN}"',
        SAYS,
    ),
    "session": ('use POSIX; if(!fork){print "did-{TOKEN}" if POSIX::setsid()>0; exit} wait', SAYS),
    "group": ('if(!fork){print "did-{TOKEN}" if setpgrp(0,0); exit} wait', SAYS),
}
ROWS = [
    {"id": name, "payload": text, "oracle": oracle} for name, (text, oracle) in PAYLOADS.items()
]


def _request(text: str, workspace: int, **limits: Any) -> ExecRequest:
    return ExecRequest(
        engine=EngineName.EXEC,
        program=Argv(words=(PERL, "-e", text)),
        tenant_hex=TENANT,
        run_hex=RUN,
        workspace_fd=workspace,
        limits=ExecLimits(**limits),
    )


@contextmanager
def _workspace() -> Iterator[int]:
    with open_directory() as base, held(base) as directory:
        yield directory


def _runner(mode: SandboxMode = SandboxMode.STRICT) -> ToolRunner:
    return runner_for(mode, executable=(PERL, CAT))


async def _attempt(scene: EscapeScene, runner: ToolRunner, row: dict[str, Any]) -> Attempt:
    scene.fresh()
    text = scene.payload(row)
    with held(scene.workspace) as directory:
        result = await runner.run(_request(text, directory, wall_seconds=2.0))
    return scene.judged(row, result)


def _all(mode: SandboxMode) -> list[Attempt]:
    async def go() -> list[Attempt]:
        runner = _runner(mode)
        try:
            with escape_scene() as scene:
                return [await _attempt(scene, runner, row) for row in ROWS]
        finally:
            await runner.close()

    return asyncio.run(go())


def test_what_a_listed_program_could_do_without_walls_it_cannot_do_within() -> None:
    free = [attempt.row_id for attempt in _all(SandboxMode.OFF_UNSAFE) if attempt.succeeded]
    assert set(PAYLOADS) - set(free) <= {"session", "group"}, free
    confined = _all(SandboxMode.STRICT)
    assert [attempt for attempt in confined if attempt.succeeded] == []
    assert not [attempt for attempt in confined if attempt.told.startswith("unavailable")]


async def test_words_reach_the_program_as_they_are_and_its_end_is_told() -> None:
    runner = _runner()
    try:
        with _workspace() as directory:
            words = "print join('|',@ARGV,sort keys %ENV),qq(\\n); print STDERR 'no'; exit 3"
            program = Argv(words=(PERL, "-e", words, "--", "a b", "$HOME", "*", ";", "'"))
            request = _request("", directory)
            told = await runner.run(
                ExecRequest(
                    engine=request.engine,
                    program=program,
                    tenant_hex=TENANT,
                    run_hex=RUN,
                    workspace_fd=directory,
                )
            )
    finally:
        await runner.close()
    assert (told.status, told.exit_code, told.stderr) == (ExecStatus.ERROR, 3, b"no")
    assert told.stdout == b"a b|$HOME|*|;|'|HOME|LC_ALL|PATH\n"


async def test_a_listed_program_may_start_another_of_the_list() -> None:
    runner = _runner()
    try:
        with _workspace() as directory:
            text = 'open(F,">a"); print F "x"; close F; exec "cat","a"'
            told = await runner.run(_request(text, directory))
    finally:
        await runner.close()
    assert (told.status, told.stdout) == (ExecStatus.OK, b"x")


@pytest.mark.parametrize("mode", SandboxMode)
async def test_what_is_not_listed_is_not_run(mode: SandboxMode) -> None:
    runner = runner_for(mode, executable=(CAT,))
    try:
        with _workspace() as directory:
            told = await runner.run(_request("print 1", directory))
    finally:
        await runner.close()
    assert (told.status, told.exit_code, told.stdout) == (ExecStatus.ERROR, 126, b"")


_SLEEPERS = (
    "$SIG{$_}='IGNORE' for qw(TERM INT HUP); for(1..5){fork||fork||do{close STDOUT; sleep 60}} "
)
LEFT = {
    "ended": "for(1..5){fork && next; $SIG{TERM}='IGNORE'; close STDOUT; sleep 60; exit} exit",
    "deadline": _SLEEPERS + "sleep 60",
    "fork-bomb": "fork while 1",
    "fork-bomb-that-ends": "$p=$$; for(1..8){fork} exit if $$==$p; sleep 60",
}


@pytest.mark.parametrize("name", sorted(LEFT))
async def test_nothing_of_a_call_is_left_when_it_is_over(name: str) -> None:
    runner = _runner()
    try:
        with _workspace() as directory:
            before = {one.pid for one in beneath(os.getpid())}
            over = await runner.run(
                _request(LEFT[name], directory, wall_seconds=1.0, cpu_seconds=1)
            )
            # The zygote took all their ends before it told of the call's.
            (zygote,) = [one for one in beneath(os.getpid()) if one.pid not in before]
            after = await runner.run(_request("print 42", directory))
    finally:
        await runner.close()
    assert zygote.parent == os.getpid()
    assert over.ended_by is not EndedBy.WORKER  # its zygote did that, and still serves
    assert after.stdout == b"42"


async def _with_a_stopped_zygote(seconds: float) -> ExecResult | None:
    """What a call came to whose zygote was stopped; None when its time was up before that."""
    runner = _runner()
    try:
        with _workspace() as directory:
            before = {one.pid for one in beneath(os.getpid())}
            endless = asyncio.create_task(
                runner.run(_request(_SLEEPERS + "sleep 60", directory, wall_seconds=seconds))
            )
            started: list[Seen] = []
            async with asyncio.timeout(120):
                while len(started) < 6 and not endless.done():
                    await asyncio.sleep(0.01)
                    started = [one for one in beneath(os.getpid()) if one.pid not in before]
            zygotes = [one.pid for one in started if one.parent == os.getpid()]
            for zygote in zygotes:
                os.kill(zygote, signal.SIGSTOP)
            told = await endless
            if told.ended_by is EndedBy.DEADLINE:  # it had answered before it was stopped
                return None
            async with asyncio.timeout(120):
                while not all(is_gone(one.pid) for one in started):  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(0.01)
            return told
    finally:
        await runner.close()


async def test_a_zygote_that_does_not_answer_is_ended_with_all_its_programs_started() -> None:
    """On a machine with much to do the short time is up before all six are there."""
    told = await _with_a_stopped_zygote(1.0) or await _with_a_stopped_zygote(10.0)
    assert told is not None
    assert told.ended_by is EndedBy.WORKER


# Eight files of half a MiB, where two MiB are allowed, kept until somebody ends it.
_KEEP = (
    'for(1..8){open(my $f,"+>","f$$") or die; syswrite $f,"x"x(512*1024); unlink "f$$"; '
    "push @k,$f} "
    "syswrite STDOUT,'kept'; syswrite W,'.'; sleep {SLEEP}; exit"
)
_WAIT = "sysread R,$b,1; sleep {SLEEP}"
OF_A_GROUP = {
    "itself": _KEEP,
    "child": "pipe R,W; if(!fork){" + _KEEP + "} " + _WAIT,
    "orphan": "pipe R,W; if(!fork){if(!fork){" + _KEEP + "} exit} " + _WAIT,
}


@pytest.mark.parametrize("name", sorted(OF_A_GROUP))
async def test_whichever_process_keeps_what_was_removed_the_call_is_ended(name: str) -> None:
    """As in `test_kept_files.py`; without walls each of them keeps it and ends by itself."""
    told = []
    for mode, seconds in ((SandboxMode.OFF_UNSAFE, "0"), (SandboxMode.STRICT, "60")):
        runner = _runner(mode)
        try:
            with _workspace() as directory:
                text = OF_A_GROUP[name].replace("{SLEEP}", seconds)
                limits = {"workspace_bytes": 2 * 1024 * 1024, "file_bytes": 1024 * 1024}
                told.append(await runner.run(_request(text, directory, **limits)))
        finally:
            await runner.close()
    free, confined = told
    assert (free.status, free.stdout) == (ExecStatus.OK, b"kept"), free
    assert confined.ended_by is EndedBy.WORKSPACE_QUOTA, confined


async def test_a_program_starts_so_many_processes_and_no_more() -> None:
    """Without the limit the four hundred are there; of the account's others some count, too."""
    runner = _runner()
    text = (
        "my $n = 0; while ($n < 400) { my $p = fork; last unless defined $p;"
        " if (!$p) { sleep 60; exit } $n++ } print $n"
    )
    try:
        with _workspace() as directory:
            result = await runner.run(_request(text, directory))
    finally:
        await runner.close()
    assert 0 < int(result.stdout) < MOST_PROCESSES
