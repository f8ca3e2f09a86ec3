"""Every shipped rule for listed programs: what it refuses, so that none can be taken out unseen."""

import tomllib
from importlib import resources
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError, ToolError
from app.tools.program_list import ProgramList, load_program_list

NEVER = {
    "starts what it is told to": """
        7z ansible ar at awk batch bpftrace bundle bwrap cargo cmake command cpp crontab docker
        dpkg apt apt-get ed emacs env ex expect fakeroot flock gawk gcc gdb gem go ghc ionice ld
        ld.so less logrotate ltrace m4 mail make man mawk more most mutt nano nawk nice nohup
        nsenter parallel pg pico podman qemu rlwrap rpm run-parts rvim screen script service
        setarch setsid start-stop-daemon stdbuf strace systemctl taskset time timeout tmux
        unshare valgrind vi view vim vimdiff watch xargs xterm
    """,
    "is a shell or an interpreter": """
        ash bash busybox cpan csh dash deno elvish fish guile irb java jjs jrunscript ksh lua
        luajit mksh mysql node perl php pip posh psql pwsh python rbash ruby sh sqlite3 tclsh
        tcsh toybox wish yash zsh
    """,
    "reaches a network": """
        aria2c curl ftp lftp nc ncat netcat nmap openssl rlogin rsh rsync scp sftp socat ssh
        tcpdump telnet w3m wget
    """,
    "changes rights, or reads the machine": """
        chmod chown chroot dmesg mount passwd su sudo
    """,
}
# By program, the arguments that make it start another, write elsewhere or ask the machine.
ARGUMENTS = {
    "date": """
        -s --set
    """,
    "diff": """
        -l --paginate
    """,
    "file": """
        -z -Z --uncompress --uncompress-noreport
    """,
    "find": """
        -exec -execdir -ok -okdir
    """,
    "git": """
        -c -p -C -O -u -x -i -e --config-env --exec-path --paginate --git-dir --work-tree
        --ext-diff --textconv --upload-pack --receive-pack --exec --open-files-in-pager --editor
        --edit --template --extcmd --tool --interactive --help am archive bisect clone commit
        config daemon difftool fetch filter-branch gui help hook init instaweb maintenance
        mergetool pull push rebase remote replace send-email shell submodule svn upload-pack
        web--browse worktree
    """,
    "install": """
        -s --strip --strip-program
    """,
    "pandoc": """
        -F -L --filter --lua-filter --pdf-engine --pdf-engine-opt
    """,
    "sort": """
        --compress-program
    """,
    "split": """
        --filter
    """,
    "tar": """
        -F -I --checkpoint-action --info-script --new-volume-script --rmt-command --rsh-command
        --to-command --use-compress-program
    """,
    "zip": """
        -T -TT --test --unzip-command
    """,
}
_NEVER = sorted(name for names in NEVER.values() for name in names.split())
_PAIRS = [(name, word) for name, words in ARGUMENTS.items() for word in words.split()]


def _listed(place: Path, name: str, file: str | None = None) -> ProgramList:
    path = place / (file or name)
    path.touch()
    (place / "exec.toml").write_text(f'[programs."{name}"]\npath = "{path}"\n')
    found = load_program_list(place)
    assert found is not None
    return found


def _shipped() -> dict[str, object]:
    text = resources.files("app.tools").joinpath("program_refusals.toml").read_text()
    return tomllib.loads(text)


@pytest.mark.parametrize("name", _NEVER)
def test_it_is_never_listed_by_its_name_or_by_its_file(tmp_path: Path, name: str) -> None:
    for called, file in ((name, None), ("harmless", name), (name, "harmless")):
        with pytest.raises(ConfigurationError, match="is never listed"):
            _listed(tmp_path, called, file)


@pytest.mark.parametrize("name", ["m4", "M4", "sqlite3", "python3.11", "lua5.4", "perl5"])
def test_a_number_at_the_end_of_a_name_hides_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is never listed"):
        _listed(tmp_path, name)


@pytest.mark.parametrize(("name", "word"), _PAIRS, ids=[f"{n} {w}" for n, w in _PAIRS])
def test_the_argument_is_refused_wherever_it_stands(tmp_path: Path, name: str, word: str) -> None:
    listed = _listed(tmp_path, name)
    for command in (f"{name} {word} x", f"{name} x {word}"):
        with pytest.raises(ToolError, match="makes this program run another"):
            listed.argv(command)
    assert listed.argv(f"{name} x")[-1] == "x"


def test_sed_runs_no_program_from_its_script(tmp_path: Path) -> None:
    assert _listed(tmp_path, "sed").argv("sed p f")[1:] == ("--sandbox", "p", "f")


def test_no_rule_is_without_its_line_here() -> None:
    shipped = _shipped()
    assert shipped["never"] == _NEVER
    assert shipped["arguments"] == {name: words.split() for name, words in ARGUMENTS.items()}
    assert shipped["first"] == {"sed": ["--sandbox"]}
