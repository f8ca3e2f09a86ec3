"""The operator's list of programs: what it may hold, and which words reach a program."""

from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError, ToolError
from app.tools.program_list import ProgramList, load_program_list


def _program(place: Path, name: str) -> Path:
    path = place / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def _listed(place: Path, *names: str, more: str = "") -> ProgramList:
    text = "".join(f'[programs."{n}"]\npath = "{_program(place, n)}"\n' for n in names)
    (place / "exec.toml").write_text(text + more)
    found = load_program_list(place)
    assert found is not None
    return found


def test_without_a_file_there_is_no_list(tmp_path: Path) -> None:
    assert load_program_list(None) is None
    assert load_program_list(tmp_path) is None


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("grep x a.txt", ["x", "a.txt"]),
        ("  grep\t'a b'  \"c d\" ", ["a b", "c d"]),
        ("grep '' \"\"", ["", ""]),
        ("grep a'b'\"c\"d\\ e", ["abcd e"]),
        ('grep "a\\"b\\\\c\\d"', ['a"b\\c\\d']),
        ("grep '$x `y` ; | & > < * ? ~ # !' f", ["$x `y` ; | & > < * ? ~ # !", "f"]),
        ('grep "a;b|c&d*" f', ["a;b|c&d*", "f"]),
        ("grep \\$HOME \\; \\*", ["$HOME", ";", "*"]),
        ("grep -e x --color=never", ["-e", "x", "--color=never"]),
    ],
)
def test_words_are_taken_by_quotes_and_spaces(
    tmp_path: Path, command: str, words: list[str]
) -> None:
    listed = _listed(tmp_path, "grep")
    assert listed.argv(command) == (str(tmp_path / "bin" / "grep"), *words)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "   ",
        "grep x; ls",
        "grep x | sort",
        "grep x && ls",
        "grep x & ",
        "grep x > f",
        "grep x < f",
        "grep $X",
        "grep ${X}",
        "grep $(ls)",
        "grep `ls`",
        'grep "$X"',
        'grep "`ls`"',
        "grep *.txt",
        "grep a?",
        "grep [ab]",
        "grep {a,b}",
        "grep ~",
        "grep x # y",
        "grep !x",
        "(grep x)",
        "grep 'x",
        'grep "x',
        "grep x\\",
        "grep x\ngrep y",
        "grep 'a\0b'",
        "X=1 grep x",
        "nosuch x",
        "/usr/bin/grep x",
        "GREP x",
        "grep " + "x " * 300,
    ],
)
def test_what_only_a_shell_would_understand_is_refused(tmp_path: Path, command: str) -> None:
    with pytest.raises(ToolError):
        _listed(tmp_path, "grep").argv(command)


# Arguments by which well-known programs start others.
SPAWNING = {
    "find": ["-exec ls ';'", "-execdir ls ';'", "-ok ls ';'", "-okdir ls ';'", ". -exec ls '{}' +"],
    "tar": [
        "cf a.tar x --checkpoint=1 --checkpoint-action=exec=ls",
        "xf a.tar --to-command=ls",
        "xf a.tar --to-c ls",
        "cIf ls a.tar x",
        "-cI ls -f a.tar x",
        "--use-compress-program ls -cf a.tar x",
        "--use=ls -cf a.tar x",
        "cf a.tar x --rsh-command=ls",
        "-cFls a.tar x",
    ],
    "git": [
        "-c core.pager=ls log",
        "--exec-path=. log",
        "-p log",
        "config alias.x ls",
        "grep -Ols x",
    ],
    "sort": ["--compress-program=ls a", "--comp ls a"],
    "split": ["--filter=ls a", "--fil ls a"],
    "zip": ["-T a.zip b", "-TT ls a.zip b", "a.zip b --unzip-command ls"],
    "diff": ["-l a b", "--paginate a b"],
}


@pytest.mark.parametrize(("name", "words"), [(n, w) for n, ws in SPAWNING.items() for w in ws])
def test_an_argument_that_starts_another_program_is_refused(
    tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(ToolError, match="makes this program run another"):
        _listed(tmp_path, name).argv(f"{name} {words}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("find", ". -name '*.txt' -type f -newer a -print"),
        ("tar", "czf a.tar.gz notes"),
        ("tar", "-xvf a.tar -C out"),
        ("sort", "-t, -k3,3n a --unique"),
        ("git", "log --oneline"),
        ("split", "-l 10 -- a"),
        ("diff", "-u a b"),
    ],
)
def test_ordinary_arguments_pass(tmp_path: Path, name: str, words: str) -> None:
    assert _listed(tmp_path, name).argv(f"{name} {words}")


def test_a_program_is_known_by_its_file_too_and_through_a_link(tmp_path: Path) -> None:
    real = _program(tmp_path, "tar")
    link = tmp_path / "bin" / "pack"
    link.symlink_to(real)
    (tmp_path / "exec.toml").write_text(f'[programs.packer]\npath = "{link}"\n')
    listed = load_program_list(tmp_path)
    assert listed is not None
    with pytest.raises(ToolError):
        listed.argv("packer xf a --to-command=ls")


def test_sed_is_put_into_the_mode_in_which_it_starts_nothing(tmp_path: Path) -> None:
    assert _listed(tmp_path, "sed").argv("sed 1e a")[1:] == ("--sandbox", "1e", "a")


def test_the_operator_refuses_more_and_nothing_less(tmp_path: Path) -> None:
    path = _program(tmp_path, "sort")
    (tmp_path / "exec.toml").write_text(
        f'[programs.sort]\npath = "{path}"\nrefuse = ["--output", "-o", "secret"]\n'
    )
    listed = load_program_list(tmp_path)
    assert listed is not None
    for words in ("-o x a", "--out=x a", "-uo x", "secret", "--compress-program=ls"):
        with pytest.raises(ToolError):
            listed.argv(f"sort {words}")
    assert listed.argv("sort -u a")


@pytest.mark.parametrize(
    "name",
    ["sh", "bash", "env", "xargs", "awk", "gawk", "python", "python3.11", "perl", "vi", "less",
     "sudo", "ssh", "curl", "timeout", "nohup", "setsid", "busybox", "make", "gdb", "ld.so"],
)  # fmt: skip
def test_a_program_that_runs_what_it_is_told_is_never_listed(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is never listed"):
        _listed(tmp_path, name)
    (tmp_path / "exec.toml").write_text(f'[programs.good]\npath = "{_program(tmp_path, name)}"\n')
    with pytest.raises(ConfigurationError, match="is never listed"):
        load_program_list(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "programs = []",
        "[programs]",
        "[programs.x]\npath = 1",
        "[programs.x]\npath = 'relative'",
        "[programs.x]\npath = '/nowhere/x'",
        "[programs.x]\npath = '/'",
        "[programs.x]\npath = '/usr/../usr/bin/sort'",
        "[programs.x]\npath = '/usr/bin/sort'\nallow = ['-x']",
        "[programs.x]\nrefuse = ['-x']",
        "[programs.'a b']\npath = '/usr/bin/sort'",
        "[programs.'a;b']\npath = '/usr/bin/sort'",
        "never = []\n[programs.x]\npath = '/usr/bin/sort'",
        "not toml",
        "\udcff",
    ],
)
def test_a_list_that_is_not_right_refuses_to_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "exec.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError):
        load_program_list(tmp_path)


def test_names_and_paths_are_told_in_order(tmp_path: Path) -> None:
    listed = _listed(tmp_path, "sort", "cat")
    assert listed.names == ("cat", "sort")
    assert listed.paths == tuple(sorted(str(tmp_path / "bin" / n) for n in ("cat", "sort")))
