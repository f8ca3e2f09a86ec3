"""json_query: RFC 6901 and RFC 9535 by their examples, and nothing that makes it slow or fall."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import ToolError
from app.domain.run import Json
from app.tools.json_path import MAX_STEPS
from app.tools.json_path_text import MAX_CHARS, MAX_NESTING
from app.tools.json_query import MAX_DOCUMENT_DEPTH, MAX_FOUND, query_json

# RFC 6901 section 5.
POINTED = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}
POINTERS = [
    ("", POINTED),
    ("/foo", ["bar", "baz"]),
    ("/foo/0", "bar"),
    ("/", 0),
    ("/a~1b", 1),
    ("/c%d", 2),
    ("/e^f", 3),
    ("/g|h", 4),
    ("/i\\j", 5),
    ('/k"l', 6),
    ("/ ", 7),
    ("/m~0n", 8),
]
BOOKS: list[Json] = [
    {"category": "reference", "author": "Nigel Rees", "title": "Sayings", "price": 8.95},
    {"category": "fiction", "author": "Evelyn Waugh", "title": "Sword", "price": 12.99},
    {"category": "fiction", "author": "Melville", "title": "Moby", "isbn": "0-5", "price": 8.99},
    {"category": "fiction", "author": "Tolkien", "title": "Lord", "isbn": "0-3", "price": 22.99},
]
STORE: Json = {"store": {"book": BOOKS, "bicycle": {"color": "red", "price": 399}}}
SHAPES: Json = {
    "a": [3, 5, 1, 2, 4, 6, {"b": "j"}, {"b": "k"}, {"b": {}}, {"b": "kilo"}],
    "o": {"p": 1, "q": 2, "r": 3, "s": 5, "t": {"u": 6}},
    "e": "f",
}
ABSENT: Json = {"obj": {"x": "y"}, "arr": [2, 3]}
PATHS: list[tuple[Json, str, list[Json]]] = [
    # Section 1.5.
    (STORE, "$.store.book[*].author", [book["author"] for book in BOOKS]),  # type: ignore[index,call-overload]
    (STORE, "$..book[2]", [BOOKS[2]]),
    (STORE, "$..book[-1]", [BOOKS[3]]),
    (STORE, "$..book[0,1]", BOOKS[:2]),
    (STORE, "$..book[:2]", BOOKS[:2]),
    (STORE, "$..book[?@.isbn]", BOOKS[2:]),
    (STORE, "$..book[?@.price<10]", [BOOKS[0], BOOKS[2]]),
    # Section 2.3.1.3.
    ({"o": {"j j": {"k.k": 3}}}, "$.o['j j']['k.k']", [3]),
    ({"o": {"j j": {"k.k": 3}}}, '$.o["j j"]["k.k"]', [3]),
    ({"'": {"@": 2}}, r"""$["'"]["@"]""", [2]),
    ({"'": {"@": 2}}, r"$['\'']['@']", [2]),
    # Section 2.3.4.3.
    (list("abcdefg"), "$[1:3]", ["b", "c"]),
    (list("abcdefg"), "$[5:]", ["f", "g"]),
    (list("abcdefg"), "$[1:5:2]", ["b", "d"]),
    (list("abcdefg"), "$[5:1:-2]", ["f", "d"]),
    (list("abcdefg"), "$[::-1]", list("gfedcba")),
    (list("abcdefg"), "$[::0]", []),
    # Section 2.3.5.3.
    (SHAPES, "$.a[?@.b == 'kilo']", [{"b": "kilo"}]),
    (SHAPES, "$.a[?(@.b == 'kilo')]", [{"b": "kilo"}]),
    (SHAPES, "$.a[?@>3.5]", [5, 4, 6]),
    (SHAPES, "$.a[?@.b]", [{"b": "j"}, {"b": "k"}, {"b": {}}, {"b": "kilo"}]),
    (SHAPES, "$[?@.*]", [SHAPES["a"], SHAPES["o"]]),  # type: ignore[index,call-overload]
    (SHAPES, "$[?@[?@.b]]", [SHAPES["a"]]),  # type: ignore[index,call-overload]
    (SHAPES, "$.o[?@<3, ?@<3]", [1, 2, 1, 2]),
    (SHAPES, "$.a[?@<2 || @.b == 'k']", [1, {"b": "k"}]),
    (SHAPES, "$.o[?@>1 && @<4]", [2, 3]),
    (SHAPES, "$.o[?@.u || @.x]", [{"u": 6}]),
    (SHAPES, "$.a[?@.b == $.x]", [3, 5, 1, 2, 4, 6]),
    (SHAPES, "$.a[?!@.b]", [3, 5, 1, 2, 4, 6]),
    # Section 2.3.5.3, the comparisons: a condition that holds lets the one element through.
    *[
        ([ABSENT], f"$[?{condition}]", [ABSENT] if holds else [])
        for condition, holds in [
            ("@.absent1 == @.absent2", True),
            ("@.absent1 <= @.absent2", True),
            ("@.absent == 'g'", False),
            ("@.absent1 != @.absent2", False),
            ("@.absent != 'g'", True),
            ("1 <= 2", True),
            ("1 > 2", False),
            ("13 == '13'", False),
            ("'a' <= 'b'", True),
            ("@.obj == @.arr", False),
            ("@.obj != @.arr", True),
            ("@.obj == @.obj", True),
            ("@.arr == 17", False),
            ("@.arr != 17", True),
            ("@.obj <= @.arr", False),
            ("@.obj <= @.obj", True),
            ("1 <= @.arr", False),
            ("true <= true", True),
            ("true > true", False),
            ("true == 1", False),
        ]
    ],
    # Section 2.5.2.3.
    ({"o": {"j": 1}, "a": [5, [{"j": 4}]]}, "$..j", [1, 4]),
    ({"o": {"j": 1}, "a": [5]}, "$..[0]", [5]),
    ({"a": 1}, "$", [{"a": 1}]),
]
MALFORMED = (
    "$.", "$[", "$[]", "$['a", "$..", "$.a b", "$[?@.a==]", "$[?@.a = 1]", "$[?length(@.a) > 1]",
    "$[01]", "$[?@.* == 1]", "$[-0]", "$[1.5]", "$[?@.a && ]", "$['\\u12']", "$['\\ud800']",
    '$["\\\'"]', "a", "$[?1]", "$[?'a']",
)  # fmt: skip


def nested(depth: int) -> str:
    return "$" + "[?@" * depth + "]" * depth


def test_a_path_may_be_nested_a_little() -> None:
    assert query_json("[1]", nested(MAX_NESTING // 2)) == "[]"


@pytest.mark.parametrize(("pointer", "value"), POINTERS)
def test_a_pointer_gives_its_value(pointer: str, value: Json) -> None:
    assert json.loads(query_json(json.dumps(POINTED), pointer)) == value


@pytest.mark.parametrize(
    "pointer", ["/x", "/foo/2", "/foo/-1", "/foo/01", "/foo/0/0", "/a~2", "foo"]
)
def test_a_pointer_to_nothing_is_refused(pointer: str) -> None:
    with pytest.raises(ToolError):
        query_json(json.dumps(POINTED), pointer)


@pytest.mark.parametrize(("document", "path", "found"), PATHS)
def test_a_path_gives_all_its_values(document: Json, path: str, found: list[Json]) -> None:
    told = json.loads(query_json(json.dumps(document), path))
    assert told == found
    assert [type(value) for value in told] == [type(value) for value in found]


@pytest.mark.parametrize("path", MALFORMED)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ToolError):
        query_json("[1, {}]", path)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ("[" * 100_000, "$"),
        ("[" * (MAX_DOCUMENT_DEPTH + 1) + "]" * (MAX_DOCUMENT_DEPTH + 1), "$"),
        ('{"a": 1, "a": 2}', "$.a"),
        ("[NaN]", "$"),
        ('["\\ud800"]', "$"),
        ("9" * 100_000, "$"),
        ("[1]", nested(MAX_NESTING + 1)),
        ("[1]", "$" + ".a" * MAX_CHARS),
        ("[" + "[1]," * 300 + "1]", "$[?$..*]"),
        ("[" + "1," * 40 + "1]", "$[?$[?$[?@ == 2]]]"),
    ],
    ids=["open", "deep", "twice", "nan", "surrogate", "digits", "nested", "long", "wide", "thrice"],
)
def test_what_would_take_too_much_is_refused(document: str, path: str) -> None:
    with pytest.raises(ToolError):
        query_json(document, path)


def test_more_than_is_shown_is_said() -> None:
    told = query_json(json.dumps(list(range(MAX_FOUND + 1))), "$[*]")
    assert told.endswith(f"[truncated: {MAX_FOUND} of {MAX_FOUND + 1}]")
    assert MAX_FOUND + 1 < MAX_STEPS


def test_no_more_is_shown_than_a_result_may_hold() -> None:
    told = query_json(json.dumps(["x" * 1000] * 100), "$[*]")
    assert told.endswith("[truncated: 48 of 100]")
    assert len(told) < 50_000


SMALL = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab'\"\\", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=8,
)


@given(document=SMALL, path=st.text("$.@[]?*:!()=<>&|'\"\\ab01, -", max_size=24))
def test_any_text_is_answered_or_refused(document: Json, path: str) -> None:
    try:
        told = query_json(json.dumps(document), path)
    except ToolError:
        return
    json.loads(told)


@given(document=SMALL)
def test_every_node_is_found_once(document: Json) -> None:
    def count(node: Json) -> int:
        below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return 1 + sum(map(count, below))

    assert len(json.loads(query_json(json.dumps(document), "$..*"))) == count(document) - 1
