"""What no file here may hold: its writer's tools, paths of its writer's disk, registry hosts."""

import re
from fnmatch import fnmatch

import pytest

from tests.architecture.source_tree import present_files, relative

# Every word is put together here, so that this file does not hold what it forbids.
_DOT = "."
_ASSISTANTS = ("claude" + " code", "claude" + "-code", "co" + "pilot", "chat" + "gpt")
_SESSIONS = ("this" + " session", "generated" + " by an ai", "generated" + " with claude")
_REGISTRIES = tuple(
    _DOT.join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("static", "crates", "io"),
        ("index", "crates", "io"),
        ("proxy", "golang", "org"),
    )
)
_WORDS = tuple(re.compile(re.escape(word), re.IGNORECASE) for word in (*_ASSISTANTS, *_SESSIONS))
_HOSTS = tuple(
    re.compile(rf"(?<![\w-]){re.escape(host)}(?![\w-])", re.IGNORECASE) for host in _REGISTRIES
)

# A home of the image's user or of a made-up one says nothing about a machine.
# An absolute path starts where no path, word or URL goes on.
_START = r"(?<![\w./~}>$-])"
_WORK = re.compile(_START + "/wo" + r"rk/(?=[A-Za-z.])")
_ROOT_HOME = re.compile(_START + "/ro" + "ot/")
_HOME = re.compile(_START + "/(?:ho" + "me|Us" + r"ers)/(?!(?:meshflow|somebody)\b)[A-Za-z][\w.-]*")

# The tests that are about running as root, which name that user's home.
ROOT_TESTS = ("tests/*root*.py", "tests/*account*.py")


def forbidden(place: str, text: str) -> list[str]:
    """Every forbidden word of a text, with its line."""
    patterns = [*_WORDS, *_HOSTS, _WORK, _HOME]
    if not any(fnmatch(place, pattern) for pattern in ROOT_TESTS):
        patterns.append(_ROOT_HOME)
    return [
        f"{place}:{number} {found.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern in patterns
        for found in pattern.finditer(line)
    ]


def test_no_file_holds_a_forbidden_word() -> None:
    files = present_files()
    assert len(files) > 50
    found = [
        told
        for file in files
        for told in forbidden(relative(file), file.read_bytes().decode("utf-8", "replace"))
    ]
    assert not found, "\n".join(found)


def test_no_file_is_named_after_a_tool_of_its_writer() -> None:
    names = {file.name.lower() for file in present_files()}
    assert names.isdisjoint(
        {"uv" + ".lock", "claude" + ".md", "agents" + ".md", ".cursor" + "rules"}
    )


@pytest.mark.parametrize(
    "text",
    [
        *(f"see {word.title()} for it" for word in (*_ASSISTANTS, *_SESSIONS)),
        *(f"index-url = https://{host}/simple" for host in _REGISTRIES),
        "cd /wo" + "rk/main",
        'open("/ro' + 'ot/.ssh")',
        "/ho" + "me/anna/meshflow",
        "=/Us" + "ers/anna",
    ],
)
def test_a_forbidden_word_is_seen(text: str) -> None:
    assert forbidden("docs/page.md", f"first line\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "/work" + "space/a.txt",
        "tests/wo" + "rk/a",
        "claude-sonnet",
        "/home/<name>",
        "/home/meshflow",
    ],
)
def test_ordinary_words_are_let_through(text: str) -> None:
    assert forbidden("docs/page.md", text) == []


def test_only_tests_about_root_may_name_its_home() -> None:
    text = "/ro" + "ot/data"
    assert forbidden("tests/unit/embedded/test_server_account.py", text) == []
    assert forbidden("app/embedded/server_account.py", text)
