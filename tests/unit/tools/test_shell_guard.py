"""The first layer of the tool `shell`: what it refuses by reading, and that it only ever grows.

The many spellings are in tests/security/corpus/shell_first_layer.jsonl; here stands why.
"""

from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError
from app.tools import shell_refusals as told
from app.tools.shell_guard import FILE_NAME, ShellRefusals, load_shell_refusals, refused

SHIPPED = load_shell_refusals(None)
_REASONS = [
    ("rm -rf /", told.flags_not_allowed("rm")),
    ("sudo ls", told.not_allowed("sudo")),
    ("chmod +x f", told.not_allowed("chmod")),
    ("curl http://example.test", told.not_allowed("curl")),
    ("cat f | sh", told.SHELL_INPUT),
    ("$x -rf /", told.UNKNOWN_NAME),
    ("rm $x", told.UNKNOWN_ARGUMENT),
    ("./program", told.OUTSIDE_PLACE),
    ("bash -c 'ls", told.UNREADABLE),
    ('eval "$x"', told.UNREAD_TEXT),
    ("cat < /dev/tcp/h/80", told.NETWORK),
    ("PATH=. ls", told.VARIABLE),
    ("shopt -s extglob", told.OPTION),
    ("X='a[$(id)]'; ((X))", told.EVALUATED),
    ("awk 'BEGIN { system(\"id\") }'", told.STARTS_PROGRAM),
    ("find . -delete", told.DELETES),
]


@pytest.mark.parametrize(("command", "sentence"), _REASONS)
def test_each_refusal_says_why_in_a_sentence_that_holds_nothing_of_the_command(
    command: str, sentence: str
) -> None:
    assert refused(command, SHIPPED) == sentence
    assert sentence in SHIPPED.sentences()


def test_every_sentence_without_a_name_has_been_seen() -> None:
    assert {sentence for _, sentence in _REASONS} >= told.SENTENCES


@pytest.mark.parametrize("name", sorted(SHIPPED.names))
def test_every_name_of_the_list_is_refused(name: str) -> None:
    for command in (name, f"/usr/bin/{name} x", f"env {name} x", f"true | '{name}' x"):
        assert refused(command, SHIPPED) == told.not_allowed(name)


@pytest.mark.parametrize("name", sorted(SHIPPED.shells))
def test_every_shell_is_refused_but_with_a_text_that_can_be_read(name: str) -> None:
    for command in (name, f"{name} f", f"{name} < f", f"ls | {name} -", f'{name} -c "$x"'):
        assert refused(command, SHIPPED) in (told.SHELL_INPUT, told.UNREAD_TEXT)
    assert refused(f"{name} -c 'echo hi'", SHIPPED) is None
    assert refused(f"{name} -c 'sudo id'", SHIPPED) == told.not_allowed("sudo")


@pytest.mark.parametrize("name", sorted(one.replace("*", "X") for one in SHIPPED.variables))
def test_every_variable_of_the_list_is_refused_however_it_is_assigned(name: str) -> None:
    for command in (
        f"{name}=x",
        f"{name}=x ls",
        f"{name}+=x",
        f"{name}[1]=x",
        f"{name}=(x)",
        f"export {name}=x",
        f"declare -g {name}",
        f"read {name} < f",
        f"printf -v {name} x",
        f"for {name} in x; do :; done",
        f"unset {name}",
        f"echo ${{{name}:=x}}",
        f"echo $(({name}=1))",
        f"env {name}=x ls",
        f"mapfile {name} < f",
        f"getopts a {name}",
        f"exec {{{name}}}>f",
    ):
        assert refused(command, SHIPPED) == told.VARIABLE, command


@pytest.mark.parametrize("text", sorted(SHIPPED.flags))
def test_every_rule_of_flags_is_refused_in_each_of_its_spellings(text: str) -> None:
    command, *groups = text.split()
    for place, group in enumerate(groups):
        for flag in group.split("/"):
            others = [one.partition("/")[0] for at, one in enumerate(groups) if at != place]
            for order in ([flag, *others], [*others, flag]):
                line = " ".join([command, *order, "x"])
                assert refused(line, SHIPPED) == told.flags_not_allowed(command)


@pytest.mark.parametrize("name", sorted(SHIPPED.strict))
def test_strict_commands_need_every_flag_known(name: str) -> None:
    for argument in ("$x", '"$x"', "$(x)", "*", "-$x", "a$x", "[-a]*", "{1..3}"):
        assert refused(f"{name} {argument}", SHIPPED) == told.UNKNOWN_ARGUMENT
    assert refused(f"{name} -- $x", SHIPPED) in (None, told.UNKNOWN_ARGUMENT)


@pytest.mark.parametrize(
    "command",
    [
        *[
            "rm f",
            "rm -r d",
            "rm -f f",
            "rm *.txt",
            "rm ./*",
            'rm -- "$f"',
            'rm "./$f"',
            "rm a{1,2}",
        ],
        *["rm -- -r -f", "rm -r x -- -f", "find . -name f -exec rm -f {} +", "ls | xargs rm --"],
        "F=a; rm $F",
        "F=a; rm \"$F\"; echo 'rm -rf x' # rm -rf x",
    ],
)
def test_rm_passes_where_its_flags_are_known(command: str) -> None:
    assert refused(command, SHIPPED) is None


@pytest.mark.parametrize(
    "command",
    [
        "X=ls; X=rm; $X",
        "X=ls; eval 'X=rm'; $X",
        "X=ls; read X < f; $X",
        "X=ls; printf -v X rm; $X",
        "X=ls; printf $a rm; $X",
        "X=ls; mapfile X < f; $X",
        "X=ls; for X in rm; do :; done; $X",
        "X=ls; unset X; $X",
        "X=ls; declare -u X; $X",
        "X=ls; ((X=1)); $X",
        "X=ls; let $y; $X",
        "X=ls; : ${X:=rm}; $X",
        "X=ls; : {X}>f; $X",
        "X=ls; wait -p X; $X",
        "X=ls; wait $a; $X",
        "X=ls; getopts a X; $X",
        "X=ls; f() { X=rm; }; f; $X",
        "X=ls true; $X",
        "false && X=ls; $X",
        "true || X=ls; $X",
        "if a; then X=ls; fi; $X",
        "for i in a; do X=ls; done; $X",
        "case a in b) X=ls;; esac; $X",
        "(X=ls); $X",
        "X=ls | cat; $X",
        "X=ls & $X",
        "f() { X=ls; }; $X",
        "$X; X=ls",
        "X=ls; sh -c '$X'",
        "X=ls; eval '$X'",
        "cat <<E; X=ls\n$($X)\nE",
        "X=ls Y=1 $X",
        "readonly X; X=ls\n$X",
        "echo $(X=ls); $X",
        "X=ls; let X=1; $X",
        "X=ls Y=2; $X",
        "X=ls > f; $X",
        "{ X=ls; } > f; $X",
        "case a in a) X=ls;; b) $X;; esac",
        "if a; then X=ls; else $X; fi",
        "X=; y=X; : ${!y:=ls}; $X ls",
        "X+=ls; $X",
        "X[0]=ls; $X",
        "X=(ls); $X",
        "declare X=ls; $X",
        "X=$(echo ls); $X",
        "_=ls; $_",
        "RANDOM=ls; $RANDOM",
        "IFS=x; X=lsxa; $X",
        "X='l*'; $X",
        "X=" + "l" * 300 + "; $X",
        "e=eval; X=ls; $e 'X=rm'; $X",
    ],
)
def test_a_variable_is_only_known_when_nothing_can_have_changed_it(command: str) -> None:
    assert refused(command, SHIPPED) in (told.UNKNOWN_NAME, told.UNKNOWN_ARGUMENT)


@pytest.mark.parametrize(
    "command",
    [
        *[
            "X=ls; $X",
            "X=ls && $X",
            "X=ls; { $X; }",
            "X=ls; if a; then $X; fi",
            "X=ls\n$X",
            "{ X=ls; }; $X",
            "if X=ls; then $X; fi",
        ],
        *["X=ls; (cd a && $X)", "X=ls; Y=$X; $Y", "X='ls -l'; $X", "f() { X=ls; $X; }; f"],
        *["X=ls; echo $($X)", 'X=ls; "$X" -l | wc', "X=; $X ls", "X=l; Y=s; $X$Y"],
    ],
)
def test_a_variable_that_is_assigned_once_before_is_known(command: str) -> None:
    assert refused(command, SHIPPED) is None


@pytest.mark.parametrize(
    "command",
    [
        *[
            "env -S 'ls'",
            "env $x ls",
            "timeout $x ls",
            "timeout 1$x ls",
            "nice -n",
            "xargs -n $x ls",
            "awk -v $x 1",
            "awk -v",
            "timeout -z 1 ls",
            "nice --x ls",
            "xargs -i ls",
        ],
        *[
            "xargs $x ls",
            "exec -z ls",
            "find $x -name a",
            "find . $x",
            'find . "$x" ls',
            "find . -zzz",
        ],
        *[
            'find "$x" ls',
            "find * -a ls",
            "read $x",
            'read "$x"',
            "read -a $x",
            "read -$x y",
            "read -p $x y",
            "read -p",
            "printf -v $x a",
        ],
        *[
            "unset $x",
            "declare $x",
            "export $x",
            "mapfile $x",
            "getopts a $x",
            "read 'a[x]'",
            "read a-b",
        ],
        *["env a-b=c ls", "find . -name $x -delete"],
        *["timeout -- 5$x ls", "find '' b -exec rm {} +"],
    ],
)
def test_an_argument_on_which_the_reading_depends_must_be_known(command: str) -> None:
    assert refused(command, SHIPPED) == told.UNKNOWN_ARGUMENT


@pytest.mark.parametrize(
    "command",
    [
        *["set -k", "set -o keyword", "set -o posix", "set $x", "set -eo pipefail -k", "set +k"],
        *[
            "shopt -s expand_aliases",
            "shopt -so keyword",
            "shopt $x",
            "declare -n x=y",
            "local -n x",
        ],
    ],
)
def test_options_that_change_the_reading_are_refused(command: str) -> None:
    assert refused(command, SHIPPED) == told.OPTION


@pytest.mark.parametrize(
    "command",
    [
        *[
            "set -euo pipefail",
            "set -x",
            "set -- $x",
            "set abc -k",
            "set - $x",
            "set +e",
            "set -o noglob",
        ],
        *[
            "shopt -s nullglob globstar",
            "declare -A m",
            "local -r x=1",
            "export -f f",
            "readonly x",
        ],
        *[
            "env",
            "env A=b",
            "env -",
            "nice -- ls",
            "xargs -- ls",
            "timeout --signal INT 5 ls",
            "find . -fprintf f %p -print",
            "command -v sudo",
            "exec 3< f",
            "exec > f",
            "nohup ls",
            "xargs",
        ],
        *[
            "trap - EXIT",
            "trap",
            "trap '' INT",
            "read -r a b < f",
            "read -p x -t 1 a",
            "unset a 'b[1]'",
        ],
        *[
            "printf '%s' $x",
            "mapfile -t -n 3 a < f",
            "wait",
            "test -v x",
            "[[ -v x ]]",
            "let x=1+2",
        ],
        *["find", "find .", "find a b -name x", "find -L . -type f", 'find "$d" -name x -print0'],
        *["find . \\( -name a -o -name b \\) -delete", "find . -newermt 2020-01-01 -exec ls {} +"],
        *[
            "nice -n 5 ls",
            "nice -5 ls",
            "time -p ls",
            "timeout -k 1 5 ls",
            "stdbuf -oL ls",
            "builtin cd",
        ],
        *["find . -exec sh -c 'echo hi' \\;", "sh -ec 'ls | wc'", "eval 'echo hi'", "busybox ls"],
        *[
            "> f",
            "2>&1",
            "a=b",
            'echo x > "$f"',
            "cat < /dev/null > /dev/stderr",
            "echo > /dev/fd/3",
        ],
        *[
            "sed -n -e p -e 's/a/b/' f",
            "sed -i.bak s/a/b/ f",
            "sed -- p f",
            "sed --quiet p",
        ],
        *[
            "sed 'y/ab/cd/;1,3{p;d}' f",
            "sed '$!N;/^a/I!d;5q' f",
            "sed '1i\\\ne x' f",
            "sed ':a;ba' f",
        ],
        *["awk -F : -v a=1 '{print}' f", "awk -- '{print}' f", "awk --assign=a=1 '1' f", "awk"],
        *["awk '{print $1 / 2 \"|\" $2}' f", "awk '/a|b/ || !/c/ {n++}'", "awk '{print} # a | b'"],
        "echo sudo curl chmod '| sh' \"rm -rf /\"",
        "grep -r 'rm -rf' .",
        *['cat <<E\nsay "a" and \\"b\\"\nE', "X=ls; ${X} -l"],
    ],
)
def test_what_is_harmless_passes(command: str) -> None:
    assert refused(command, SHIPPED) is None


@pytest.mark.parametrize(
    "command",
    [
        *["echo > /dev/tcp/h/1", "echo > '/dev/udp/h/1'", "echo > /dev/$x", "echo > /dev/t$x/1"],
        *["x=/dev/tcp/h/1; echo > $x", "echo > /$x; echo /dev/sda", "echo > $x/tcp/h/1"],
        *["x=tcp/h/1; echo > $y$x", 'read d <<< /dev; cat < "$d/$e"', "{ ls; } > /dev/tcp/h/1"],
    ],
)
def test_a_redirection_that_may_be_a_connection_is_refused(command: str) -> None:
    assert refused(command, SHIPPED) == told.NETWORK


@pytest.mark.parametrize(
    "evaluation",
    [
        *["((x))", "echo $((x))", "[[ x -eq 1 ]]", "[[ -v x ]]", "test -v x", "[ -v x ]", "let x"],
        *["echo ${a[x]}", "echo ${a:x}", "declare -i y", "a[x]=1", "for ((;x;)); do :; done"],
        'printf "$f" "$y"',
        *[
            ": ${!y}",
            "RANDOM=$y",
            "z=([y]=1)",
            "declare -a z=$y",
            'declare "z=($y)"',
            'export "z=$q"',
        ],
    ],
)
@pytest.mark.parametrize("text", ["'$(id)'", "'`id`'", "'a$'", "'\\x24(id)'", '"\\$(id)"', "'${x'"])
def test_quoted_code_is_refused_beside_what_would_evaluate_it(evaluation: str, text: str) -> None:
    assert refused(f"y={text}; {evaluation}", SHIPPED) == told.EVALUATED
    assert refused(f"y={text}; echo 1", SHIPPED) is None
    assert refused(f"y=1; {evaluation}", SHIPPED) is None


@pytest.mark.parametrize(
    "command",
    [
        *[
            "/usr/bin/../bin/../../opt/x",
            "~/x",
            "../x",
            "bin/ls",
            "/opt/ls",
            "/usr/bin/x/ls",
            "//x",
        ],
        *["env ./x", "find . -exec ./x \\;"],
    ],
)
def test_only_system_programs_are_called_by_a_path(command: str) -> None:
    assert refused(command, SHIPPED) in (told.OUTSIDE_PLACE, told.UNKNOWN_NAME)
    assert refused("/usr/bin/ls; /bin//cat f; /usr/local/bin/x", SHIPPED) is None


def test_what_is_run_within_what_is_run_is_bounded() -> None:
    nested = "echo hi"
    for _ in range(6):
        nested = f"eval {nested}"
    assert refused(nested, SHIPPED) is None
    assert refused("eval " * 40 + "echo hi", SHIPPED) == told.UNREADABLE
    assert refused("env " * 40 + "echo hi", SHIPPED) == told.UNKNOWN_NAME
    long = "X='echo " + "a" * 240 + "';"
    assert refused(long + 'eval "$X";' * 100, SHIPPED) is None
    assert refused(long + 'eval "$X";' * 300, SHIPPED) == told.UNREADABLE
    known = "X='" + "a " * 100 + "';"
    assert refused(known + "echo $X;" * 1_000, SHIPPED) == told.UNREADABLE


def test_operators_add_and_take_nothing_away(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(
        'names = ["ls"]\nvariables = ["MY_*"]\nflags = ["cp -a"]\nstrict = ["mv"]\n'
        'shells = ["xsh"]\n'
    )
    refusals = load_shell_refusals(tmp_path)
    assert refusals.names == SHIPPED.names | {"ls"}
    for command in ("ls -l", "MY_X=1", "cp -Ra b", "mv $x", "xsh f", "sudo id", "rm -rf x"):
        assert refused(command, refusals) is not None
    for command in ("ls -l", "MY_X=1", "cp -Ra b", "mv $x", "xsh f"):
        assert refused(command, SHIPPED) is None
    (tmp_path / FILE_NAME).write_text("names = []\nshells = []\nflags = []\n")
    assert load_shell_refusals(tmp_path) == SHIPPED


@pytest.mark.parametrize(
    "text",
    [
        *["allow = ['ls']", "names = 1", "names = [1]", "names = [", "\x00", "x = " + "1" * 9],
        *["flags = ['rm']", "flags = ['rm -r/']", "flags = ['']", "flags = ['rm f']"],
        "#" * 300_000,
    ],
)
def test_a_file_that_is_not_a_list_of_refusals_refuses_to_start(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ConfigurationError, match=FILE_NAME):
        load_shell_refusals(tmp_path)


def test_a_list_that_cannot_be_opened_refuses_to_start(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_shell_refusals(tmp_path)


def test_what_the_policy_promises_is_on_the_shipped_list() -> None:
    assert {"sudo", "chmod", "curl", "wget", "su", "doas", "chown", "source", "."} <= SHIPPED.names
    assert {"sh", "bash", "dash", "zsh", "ksh"} <= SHIPPED.shells
    assert "rm -r/-R/--recursive -f/--force" in SHIPPED.flags
    assert "rm" in SHIPPED.strict
    assert isinstance(SHIPPED, ShellRefusals)


@pytest.mark.parametrize("name", ["awk", "gawk", "mawk", "nawk", "original-awk"])
def test_every_awk_is_read(name: str) -> None:
    assert refused(f"{name} 'BEGIN {{ system(\"id\") }}'", SHIPPED) == told.STARTS_PROGRAM


@pytest.mark.parametrize("program", ['print 1 / 2 | "sh"', 'x = $1 / 2; print | "sh"'])
def test_a_division_hides_no_pipe_of_awk(program: str) -> None:
    """Read as the beginning of a pattern, the pipe would be within it."""
    assert refused(f"awk '{{{program}}} # /'", SHIPPED) == told.STARTS_PROGRAM


@pytest.mark.parametrize("name", ["sed", "gsed"])
def test_a_script_of_sed_is_found_wherever_it_stands(name: str) -> None:
    for arguments in (
        *("'e id'", "-n -e 'e id' p", "'-ee id' p", "--expression='e id' p", "-f p p", "-fp p"),
        *("s/a/$x/ f", "-e p -es/a/b/e f", "p -e 'e id'"),
    ):
        assert refused(f"{name} {arguments}", SHIPPED) == told.STARTS_PROGRAM


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("find . -exec ls {} \\; -exec sudo id \\;", told.not_allowed("sudo")),
        ("find . -exec ls {} + -exec sudo id \\;", told.not_allowed("sudo")),
        ('find "$x" -name a -exec rm {} \\;', told.UNKNOWN_ARGUMENT),
        ("declare a=1 PATH=x", told.VARIABLE),
        ("typeset PATH=x", told.VARIABLE),
        ("read a PATH", told.VARIABLE),
        ("(( `sudo id` ))", told.not_allowed("sudo")),
        ('echo "${x:-`sudo id`}"', told.not_allowed("sudo")),
        ("X=${y:-'$(id)'}; ((X))", told.EVALUATED),
        ("y='$(id)'; (( `echo y` ))", told.EVALUATED),
        ('eval "echo \'"', told.UNREADABLE),
        ('sh -c "echo \'"', told.UNREADABLE),
    ],
)
def test_what_stands_behind_something_harmless_is_judged_too(command: str, sentence: str) -> None:
    assert refused(command, SHIPPED) == sentence


def test_a_flag_of_one_dash_and_several_letters_is_matched_whole(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('flags = ["find -print"]\n')
    refusals = load_shell_refusals(tmp_path)
    assert SHIPPED.flags < refusals.flags
    (tmp_path / FILE_NAME).write_text('flags = ["ls -abc"]\n')
    refusals = load_shell_refusals(tmp_path)
    assert refused("ls -abc", refusals) == told.flags_not_allowed("ls")
    assert refused("ls -a -b -c", refusals) is None


def test_more_words_of_braces_than_anybody_reads_are_not_known() -> None:
    """Sixty-four are read; twice as many might hold a flag, and 65,536 would hold the server."""
    assert refused("rm " + "{a,b}" * 6, SHIPPED) is None
    assert refused("rm " + "{a,b}" * 7, SHIPPED) is not None
    assert refused("rm " + "{a,b}" * 16, SHIPPED) is not None
