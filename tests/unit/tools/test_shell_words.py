"""The parser of shell commands: what it makes of them, what it refuses to read, and its cost."""

import re
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import UnreadableShellError
from app.tools.shell_grammar import read_shell
from app.tools.shell_guard import load_shell_refusals, refused
from app.tools.shell_tree import Block, Function, Opaque, Program, Simple, Word
from app.tools.shell_values import UNKNOWN, Knowledge, Value, values
from app.tools.shell_words import MAX_CHARS, MAX_NESTING

SHIPPED = load_shell_refusals(None)


def _simple(program: Program) -> Iterator[Simple]:
    """Every simple command, those inside words and compound commands too."""
    for chain in program.chains:
        for pipeline in chain.pipelines:
            for command in pipeline:
                match command:
                    case Simple():
                        yield command
                        words = [*command.words, *(one.target for one in command.redirects)]
                        for assignment in command.assignments:
                            words += [*assignment.words, *filter(None, [assignment.value])]
                        yield from _inside(words)
                    case Block(parts=parts, words=words_of_head):
                        yield from _inside([*words_of_head])
                        for part in parts:
                            yield from _simple(part)
                    case Function(body=body):
                        for part in body.parts:
                            yield from _simple(part)


def _inside(words: list[Word]) -> Iterator[Simple]:
    for word in words:
        for program in word.programs:
            yield from _simple(program)


def _argvs(text: str) -> list[list[str]]:
    """The arguments of every simple command, with `?` for what is not known."""
    knowledge = Knowledge()
    return [
        [
            one.shape.replace(UNKNOWN, "?")
            for word in command.words
            for one in values(word, knowledge)
        ]
        for command in _simple(read_shell(text).program)
        if command.words
    ]


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("a 'b c'\"d e\"f", ["a", "b cd ef"]),
        ("a \\b\\ c \\\\", ["a", "b c", "\\"]),
        ('a "b\\"c" "\\a" "\\$"', ["a", 'b"c', "\\a", "$"]),
        ("a b\\\n \\\n d \\\n", ["a", "b", "d"]),
        ("a $'b\\tc\\x41\\101\\u0041\\'d'", ["a", "b\tcAAA'd"]),
        ("a \"$'b'\"", ["a", "$'b'"]),
        ("a '' \"\"", ["a", "", ""]),
        ("a # b", ["a"]),
        ("a b#c '#'", ["a", "b#c", "#"]),
        ("a $ 'b$' c$", ["a", "$", "b$", "c$"]),
        ("a $b ${b} \"$b\" x$b'y'", ["a", "?", "?", "?", "x?y"]),
        ("a $1 $@ $? ${#b} ${b:-c} $((1+2))", ["a", "?", "?", "?", "?", "?", "?"]),
        ("a ~ ~/b b~ 'c'~", ["a", "?", "?/b", "b~", "c~"]),
        ("a * b? [cd]e [ f]", ["a", "?", "b?", "?e", "[", "f]"]),
        ("a '*' \\? [[] ]", ["a", "*", "?", "??", "]"]),
        ("a {b,c}d", ["a", "bd", "cd"]),
        ("a {b,{c,d}}", ["a", "b", "c", "d"]),
        ("a {} {b} {b,c '{b,c}' x{,y}", ["a", "{}", "{b}", "?", "{b,c}", "x", "xy"]),
        ("a {1..3} {b..d}e", ["a", "?", "?e"]),
        ("a b>c 2>&1 d <e >>f <<<g &>h", ["a", "b", "d"]),
        ("2a 2 >b", ["2a", "2"]),
        ("{a", ["{a"]),
        ("a =b c=d", ["a", "=b", "c=d"]),
        ("X=1 Y=2 a b", ["a", "b"]),
        ("a <(b) >(c)", ["a", "/dev/fd/?", "/dev/fd/?"]),
        ("a b<(c)", ["a", "b/dev/fd/?"]),
        ("a if then fi", ["a", "if", "then", "fi"]),
        ("'if' a", ["if", "a"]),
        ("! a", ["a"]),
        ("time -p a b", ["a", "b"]),
    ],
)
def test_words_become_what_the_shell_makes_of_them(text: str, argv: list[str]) -> None:
    assert _argvs(text)[0] == argv


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a; b & c\nd && e || f | g |& h", "abcdefgh"),
        ("(a; b)", "ab"),
        ("{ a; b; }", "ab"),
        ("( (a) )", "a"),
        ("if a; then b; elif c; then d; else e; fi", "abcde"),
        ("while a; do b; done; until c; do d; done", "abcd"),
        ("for x in 1 2; do a; done; for x; do b; done; for x do c; done", "abc"),
        ("for ((i=0;i<2;i++)); do a; done", "a"),
        ("select x in 1; do a; done", "a"),
        ("case x in y) a;; (z|w) b;& *) c;;& v) ;; u) d; esac; e", "abcde"),
        ("f() { a; }; function g { b; }; function h() ( c )", "abc"),
        ('a $(b $(c)) `d` "$(e)" "`f`"', "abcdef"),
        ('a ${x:-$(b)} "${x:-`c`}" $(( $(d) ))', "abcd"),
        ("a <(b) > >(c)", "abc"),
        ("X=$(a) Y=(b $(c)) b", "abc"),
        ("x[1]=$(a); y=($(b) [1]=`c`)", "abc"),
        ("[[ $(a) == b && -f $(b) ]]", "ab"),
        ("[[ a =~ ^(b|$(a) )$ ]] && b", "ab"),
        ("(( $(a) + 1 ))", "a"),
        ("a <<E\n$(b)\nE\nc", "acb"),
        ("a <<'E'\n$(b)\nE\nc", "ac"),
        ("a <<-E\n\t$(b)\n\tE\nc", "acb"),
        ("a <<E <<F\nE\n`b`\nF\nc", "acb"),
        ("a <<E | b\nE\nc", "abc"),
        ("x=$(a <<E\nb\nE\n)", "a"),
        ("a <<E\nb\\\nE\nE\nc", "ac"),
        ("a <<< $(b)", "ab"),
        ("time { a; }; ! { b; }", "ab"),
        ("`a \\`b\\``", "ab"),
    ],
)
def test_every_command_is_found_wherever_it_stands(text: str, names: str) -> None:
    found = [argv[0] for argv in _argvs(text) if not argv[0].startswith("?")]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize(
    "text",
    [
        *["'", '"', "a\\", "$(", "${", "`", "$'", "((", "[[ a", "a <<E", "(", ")", "{ a", "a )"],
        *[
            "if a",
            "if a; then b",
            "while a; done",
            "for",
            "for x in",
            "case",
            "case a in b) c",
            "fi",
        ],
        *["; a", "a ;; b", "a | | b", "a &&", "| a", "& a", "a ; ; b", "a > ", "a <", "> > a"],
        *[
            "f() a",
            "a()",
            "f(b) { c; }",
            "a=(b",
            "a=(b;c)",
            "x (a)",
            "a b=(c)",
            "coproc a",
            "for x$y in a; do b; done",
            "for x in a do b; done",
            "case a b in c) d; esac",
            "case a in b c) d;; esac",
            "for x in a | do b; done",
        ],
        "a\rb",
        "a\0",
        "a\x1b",
        "a\ud800",
    ],
)
def test_what_is_not_well_formed_is_not_read(text: str) -> None:
    with pytest.raises(UnreadableShellError):
        read_shell(text)


@pytest.mark.parametrize(
    "text",
    [
        *[
            "a[ # ]=b; c",
            "a=([ # ]=b)",
            "a=([ # ]=b\n)",
            'a["]" # ]=b',
            "echo a[ b",
            "((a) )",
            "$((a) )",
            "$[1]",
        ],
        *[
            "echo @(a|b)",
            "${ a; }",
            "${| a; }",
            "${x@P}",
            "r\\\nm",
            "$x\\\ny",
            '"$x\\\ny"',
            "x\\\n=a",
            "[[\\\na ]]",
            "[[ a == ]] ]]",
            "${x:-{}",
            "$'a\\0b'",
            "$'\\xff'",
            "$'\\z'",
        ],
        *[
            "\"${x#'a}'}\"",
            "$\\\n(a)",
            "<\\\n(a)",
            "a <<$x\nb\n$x",
            "a <<E 'b\nc'\nE",
        ],
        *['a <<E\n${x:-"b"}\nE', "x=$(a <<E\nEE\nE\n)", '"`a \\"b\\"`"', "for x in a; { b; }"],
        *["$((1<(2)))", "$(('a'))", "if\\\n a", "a <<E\nb\nE "],
    ],
)
def test_what_shells_read_differently_is_not_read(text: str) -> None:
    with pytest.raises(UnreadableShellError):
        read_shell(text)


def test_length_and_nesting_are_bounded() -> None:
    read_shell("a" * MAX_CHARS)
    read_shell("( " * MAX_NESTING + "a" + ")" * MAX_NESTING)
    for text in (
        "a" * (MAX_CHARS + 1),
        "( " * (MAX_NESTING + 1) + "a" + ")" * (MAX_NESTING + 1),
        "$(" * (MAX_NESTING + 1) + "a" + ")" * (MAX_NESTING + 1),
        "$(" * MAX_NESTING + "`a`" + ")" * MAX_NESTING,
        "a;" * (MAX_CHARS // 2),
        "a " + "<<E " * 17 + "\n" + "E\n" * 17,
    ):
        with pytest.raises(UnreadableShellError):
            read_shell(text)


def test_a_value_that_may_be_a_flag_is_told_from_one_that_cannot() -> None:
    for shape in ("-r", UNKNOWN, f"{UNKNOWN}rf", f"-{UNKNOWN}"):
        assert Value(shape).may_be_flag()
    for shape in ("a", f"a{UNKNOWN}", f"./{UNKNOWN}", f"{UNKNOWN}.txt", ""):
        assert not Value(shape).may_be_flag()
    assert Value(f"a{UNKNOWN}", is_split=True).may_be_flag()


def test_a_known_text_is_divided_as_an_unquoted_expansion_is() -> None:
    knowledge = Knowledge(texts={"X": " a  b ", "E": "", "G": "a*"})

    def read(text: str, known: Knowledge = knowledge) -> list[str]:
        (command,) = _simple(read_shell(text).program)
        found = [one for word in command.words for one in values(word, known)]
        return [one.shape.replace(UNKNOWN, "?") + "+" * one.is_split for one in found]

    assert read("c $X") == ["c", "a", "b"]
    assert read('c "$X"') == ["c", " a  b "]
    assert read("c x${X}y") == ["c", "x", "a", "b", "y"]
    assert read("$E c $E") == ["c"]
    assert read('c "$E"') == ["c", ""]
    assert read("c $G") == ["c", "?+"]
    assert read("c $X", Knowledge(texts=knowledge.texts, is_default_ifs=False)) == ["c", "?+"]


_PIECES = st.sampled_from(
    re.findall(
        r"\S+",
        "a b ' \" \\ $ ( ) { } ` ; & | < > # = [ ] ! * ? ~ , .. << <<- <<< E EOF $( ${ $(( )) (("
        " [[ <( >( $' $\" && || ;; ;& |& &> >& 2> if then elif else fi do done case in esac"
        " while until select function time coproc f() a=( a[ ]= X=b $X ${X} ${X:- eval sh -c exec"
        " env xargs find -exec {a,b} @( 1 -n rm -rf sed awk 's/a/b/' '{print}' read printf -v set"
        " -- trap export unset \0 \x7f \u00e9 \u200b",
    )
)
_TEXTS = st.lists(st.one_of(_PIECES, st.sampled_from([" ", "\n", "\t", "; "])), max_size=60).map(
    "".join
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(_TEXTS, st.text(max_size=200)))
def test_any_text_is_read_or_refused_and_raises_nothing_else(text: str) -> None:
    sentence = refused(text, SHIPPED)
    assert sentence is None or sentence in SHIPPED.sentences()
    assert sentence == refused(text, SHIPPED)
    try:
        read_shell(text)
    except UnreadableShellError:
        assert sentence is not None


def _steps(work: Callable[[], object]) -> int:
    """Lines of Python that run: a time that no other program disturbs."""
    steps = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize(
    "unit",
    [
        *[
            "a ",
            "a;",
            "'a'",
            "\\a",
            "$a",
            '"$a" ',
            "$(a) ",
            "`a` ",
            "${a:-b} ",
            "{a,b}",
            "{a",
            "[a",
            "[a]",
        ],
        *[
            "<(a) ",
            "$((1+a)) ",
            ">f ",
            "a=b ",
            "a=b;",
            "<<<a ",
            "if a; then b; fi;",
            "a[1]=b;",
            "$'\\x41'",
        ],
        *[
            "eval a;",
            "env a;",
            "(a);",
            "f() { a; };",
            "[[ a ]];",
            "case a in b) c;; esac;",
            "#a\n",
            "a\\\n",
        ],
        *[
            "sed 's/[]]/a/';",
            "awk '/a/';",
            "find . -exec a {} +;",
            "rm a;",
            "xargs a;",
            "cat <<E\nb\nE\n",
        ],
    ],
)
def test_the_cost_grows_as_the_text_does(unit: str) -> None:
    short, long = unit * 40, unit * 160
    assert _steps(lambda: refused(long, SHIPPED)) < 4.6 * _steps(lambda: refused(short, SHIPPED))


def test_patterns_of_the_parser_do_not_backtrack() -> None:
    """Each of these would take hours where a pattern tried every division of what it matched."""
    for text in (
        "sed 's/" + "[]" * 9_000 + "/'",
        "sed '/" + "[[]" * 6_000 + "/p'",
        "awk '" + "/[]" * 6_000 + "'",
        "awk '\"" + "\\a" * 9_000 + "'",
        "a " + "<<E" + "\\\n" * 9_000,
        "$'" + "\\'" * 9_000,
        "`" + "\\`" * 9_000,
        "a[" + "$a" * 9_000,
    ):
        refused(text, SHIPPED)  # must come back, whatever it says


def test_an_opaque_piece_in_quotes_is_one_word_but_for_lists() -> None:
    def splits(text: str) -> list[bool]:
        (command, *_) = _simple(read_shell(text).program)
        pieces = [piece for word in command.words[1:] for piece in word.pieces]
        return [piece.is_split for piece in pieces if isinstance(piece, Opaque)]

    assert splits('a "$(b)" "${b:-c}" "${b[*]}" "$*" "${#b}"') == [False] * 5
    assert splits('a "$@" "${@}" "${b[@]}" "${b:-$@}" "${!b}" "${@:1}"') == [True] * 6
    assert splits("a $(b) ${b:-c} $1 $*") == [True] * 4


def test_no_error_holds_the_text() -> None:
    for text in ("secret'", "secret )", "secret <<", "secret\r"):
        with pytest.raises(UnreadableShellError) as told:
            read_shell(text)
        assert re.search("secret", str(told.value)) is None
