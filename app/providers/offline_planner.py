"""Decides the next step of the offline stand-in: plain rules over the caller's own words.

The caller's text is read into wishes, one tool call each, in the order they stand there. A finder
is one small function from text to wishes; a new kind of work is a new finder in `FINDERS` and a
sentence in `_SENTENCES`. Only text of the caller is read: data and tool results never become
wishes, and nothing outside `request.tools` is called. Pure, deterministic, linear in the text.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from app.domain.run import JsonObject
from app.domain.spotlight import unmarked
from app.domain.step import (
    ModelRequest,
    Origin,
    ResultsMessage,
    TextMessage,
    ToolCall,
    ToolResult,
)

SIGNATURE = "[offline stand-in, no language model]"
_MOST_TEXT = 4_000  # of the caller's words, in characters
_MOST_WISHES = 16
_MOST_QUOTED = 2_000  # of a result, in characters
_WINDOW = 300  # how far unquoted content may reach, in characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One tool call that the caller asked for, and where in the text.

    `fills` names the argument that takes the result of the wish before, if any.
    """

    start: int
    end: int
    tool: str
    arguments: JsonObject
    fills: str | None = None


Finder: TypeAlias = Callable[[str], Iterator[Wish]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """The last step: this text."""

    text: str


def next_step(request: ModelRequest) -> ToolCall | Say:
    """The next tool call, or the final text.

    Calls come one at a time, and each has its place in the plan in its id, so the same request
    always gives the same step. The first call that was refused or failed ends the plan.
    """
    offered = {tool.name for tool in request.tools}
    wishes = wishes_in(_caller_text(request))
    if not wishes:
        return Say(text=_nothing_understood(offered))
    results = _results(request)
    told: list[str] = []
    before: str | None = None
    for place, wish in enumerate(wishes, start=1):
        call_id = f"offline_{place}"
        result = results.get(call_id)
        if result is not None:
            if result.is_error:
                told.append(_refusal(wish, result))
                break
            told.append(_SENTENCES.get(wish.tool, _plain)(wish, result.content))
            before = result.content
        elif wish.tool not in offered:
            told.append(f"The tool {wish.tool} is not offered to this run, so I stopped there.")
            break
        elif wish.fills is None:
            return ToolCall(call_id=call_id, name=wish.tool, arguments=wish.arguments)
        elif before is not None:
            arguments: JsonObject = {**wish.arguments, wish.fills: before}
            return ToolCall(call_id=call_id, name=wish.tool, arguments=arguments)
        else:
            told.append(f"There is no result yet that {wish.tool} could use, so I stopped there.")
            break
    undone = len(wishes) - len(told)
    if undone:
        told.append(f"Steps not attempted: {undone}.")
    return Say(text=" ".join((SIGNATURE, *told)))


def wishes_in(text: str) -> tuple[Wish, ...]:
    """Every wish in the text, in its order. Of two that overlap, the one that starts first."""
    found = [wish for finder in FINDERS for wish in finder(text[:_MOST_TEXT])]
    kept: list[Wish] = []
    for wish in sorted(found, key=lambda wish: (wish.start, -wish.end)):
        if not kept or wish.start >= kept[-1].end:
            kept.append(wish)
    return tuple(kept[:_MOST_WISHES])


def _caller_text(request: ModelRequest) -> str:
    return "\n".join(
        message.text
        for message in request.messages
        if isinstance(message, TextMessage) and message.origin is Origin.CALLER
    )[:_MOST_TEXT]


def _results(request: ModelRequest) -> dict[str, ToolResult]:
    return {
        result.call_id: replace(result, content=unmarked(result.content))
        for message in request.messages
        if isinstance(message, ResultsMessage)
        for result in message.results
    }


# --- arithmetic
_ASKS_SUM = re.compile(
    r"\b(?:what\s{1,4}is|what's|how\s{1,4}much\s{1,4}is|calculate|compute|evaluate|work\s{1,4}out)"
    r"\s{1,4}(?:the\s{1,4}(?:result|value)\s{1,4}of\s{1,4})?",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\s{0,4}(?:(?P<number>\d{1,40}(?:\.\d{1,40})?)|(?P<sign>\*\*|//|[-+*/%^()\u00d7\u00f7])"
    r"|(?P<word>plus|minus|times|multiplied\s{1,4}by|divided\s{1,4}by)\b)",
    re.IGNORECASE,
)
_SIGNS = {"^": "**", "\u00d7": "*", "\u00f7": "/"}
_WORDS = {"plus": "+", "minus": "-", "times": "*", "multiplied": "*", "divided": "/"}
_MOST_PARTS = 400


def find_arithmetic(text: str) -> Iterator[Wish]:
    """`what is 6*7`, `calculate (2+3)*4`, or a text that is nothing but an expression."""
    bare = text.strip().rstrip("?= ")
    whole = _expression_at(bare, 0)
    if whole is not None and whole[1] == len(bare):
        yield _sum(0, len(text), whole[0])
        return
    reached = 0
    for asked in _ASKS_SUM.finditer(text):
        found = _expression_at(text, asked.end()) if asked.start() >= reached else None
        if found is not None:
            reached = found[1]
            yield _sum(asked.start(), reached, found[0])


def _sum(start: int, end: int, expression: str) -> Wish:
    return Wish(start=start, end=end, tool="calculator", arguments={"expression": expression})


def _expression_at(text: str, at: int) -> tuple[str, int] | None:
    """The longest expression that starts here and where it ends; None when it computes nothing."""
    parts: list[tuple[str, int]] = []
    while len(parts) < _MOST_PARTS and (part := _PART.match(text, at)) is not None:
        at = part.end()
        if part["number"] is not None:
            written = part["number"]
        elif part["sign"] is not None:
            written = _SIGNS.get(part["sign"], part["sign"])
        else:
            written = _WORDS[part["word"].split()[0].lower()]
        parts.append((written, at))
    while parts and not (parts[-1][0][0].isdigit() or parts[-1][0] == ")"):
        del parts[-1]  # "2+2 - and then": an operator that nothing follows is punctuation
    numbers = sum(written[0].isdigit() for written, _ in parts)
    signs = sum(written in {"+", "-", "*", "/", "//", "%", "**"} for written, _ in parts)
    if not numbers or not signs:
        return None
    return "".join(written for written, _ in parts), parts[-1][1]


# --- files ----------------------------------------------------------------------------------------

_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}
_PATH = r"[\"'`]?(?P<path>[A-Za-z0-9_./~-]{1,128})[\"'`]?"
_THE_FILE = (
    r"(?:(?:a|the|my)\s{1,4})?(?:new\s{1,4})?(?:file\s{1,4})?(?:(?:called|named)\s{1,4})?" + _PATH
)
_ASKS_WRITE = re.compile(r"\b(?:write|save|store|put)\s{1,4}", re.IGNORECASE)
_INTO = re.compile(r"\s{1,4}(?:to|into|in|as)\s{1,4}" + _THE_FILE, re.IGNORECASE)
_ASKS_CREATE = re.compile(
    r"\b(?:create|make|write)\s{1,4}" + _THE_FILE + r"\s{1,4}(?:with|containing)\s{1,4}"
    r"(?:the\s{1,4})?(?:(?:text|contents?|words?)\s{1,4})?",
    re.IGNORECASE,
)
_ASKS_READ = re.compile(
    r"\b(?:read|open|show|print|display|cat|what\s{1,4}is\s{1,4}in|what's\s{1,4}in)\s{1,4}"
    r"(?:me\s{1,4})?(?:(?:the\s{1,4})?contents?\s{1,4}of\s{1,4})?" + _THE_FILE,
    re.IGNORECASE,
)
_ASKS_LIST = re.compile(
    r"\b(?:list|show|what)\s{1,4}(?:me\s{1,4})?(?:all\s{1,4})?(?:(?:the|my)\s{1,4})?files\b"
    r"(?:\s{1,4}(?:are\s{1,4})?(?:in|under|of)\s{1,4}(?:the\s{1,4})?"
    r"(?:(?:folder|directory)\s{1,4})?" + _PATH + r")?",
    re.IGNORECASE,
)
_THE_RESULT = frozenset(
    f"{article}{word}"
    for article in ("", "the ", "its ", "this ", "that ")
    for word in ("it", "this", "that", "result", "answer", "output", "sum", "total", "value")
)


def find_writes(text: str) -> Iterator[Wish]:
    """`write 'hello' to notes.txt`, `save the result to answer.txt`, `create a.txt with "x"`."""
    for asked in _ASKS_CREATE.finditer(text):
        path, content = _path(asked), _quoted_at(text, asked.end())
        if path is not None and content is not None:
            yield _write(asked.start(), content[1], path, content[0])
    for asked in _ASKS_WRITE.finditer(text):
        content = _quoted_at(text, asked.end())
        if content is not None:
            into = _INTO.match(text, content[1])
            path = None if into is None else _path(into)
            if into is not None and path is not None:
                yield _write(asked.start(), into.end(), path, content[0])
            continue
        window = text[asked.end() - 1 : asked.end() + _WINDOW]
        for into in _INTO.finditer(window):
            path = _path(into)
            if path is not None:
                said = window[: into.start()].strip()
                end = asked.end() - 1 + into.end()
                yield _write(asked.start(), end, path, None if _is_result(said) else said)
                break


def _is_result(said: str) -> bool:
    return " ".join(said.lower().split()) in _THE_RESULT


def _write(start: int, end: int, path: str, content: str | None) -> Wish:
    if content is None:
        return Wish(
            start=start, end=end, tool="write_file", arguments={"path": path}, fills="content"
        )
    arguments: JsonObject = {"path": path, "content": content}
    return Wish(start=start, end=end, tool="write_file", arguments=arguments)


def find_reads(text: str) -> Iterator[Wish]:
    """`read notes.txt`, `show me the contents of notes.txt`, `what is in notes.txt`."""
    for asked in _ASKS_READ.finditer(text):
        path = _path(asked)
        if path is not None:
            yield Wish(
                start=asked.start(), end=asked.end(), tool="read_file", arguments={"path": path}
            )


def find_lists(text: str) -> Iterator[Wish]:
    """`list files`, `list the files in reports`."""
    for asked in _ASKS_LIST.finditer(text):
        path = asked["path"].rstrip(".,") if asked["path"] is not None else ""
        yield Wish(
            start=asked.start(),
            end=asked.end(),
            tool="list_files",
            arguments={"path": path or "."},
        )


def _path(found: re.Match[str]) -> str | None:
    """The path, if it looks like one: words of a sentence have no dot or slash inside them.

    Whether it may be touched is not decided here: `../secret` is asked for, and refused elsewhere.
    """
    path = found["path"].rstrip(".")
    looks_like_one = ("." in path or "/" in path) and any(map(str.isalpha, path))
    return path if looks_like_one else None


def _quoted_at(text: str, at: int) -> tuple[str, int] | None:
    """The quoted text that starts here and where it ends."""
    closing = _QUOTES.get(text[at : at + 1])
    end = -1 if closing is None else text.find(closing, at + 1)
    return None if end < 0 else (text[at + 1 : end], end + 1)


# --- programs -------------------------------------------------------------------------------------

_ASKS_PROGRAM = re.compile(
    r"(?i)\b(?:run|execute)\s{1,4}(?:(?:this|the|some|a)\s{1,4})?(?:following\s{1,4})?(?:in\s{1,4})?"
    r"(?:(?P<python>python)|(?:the\s{1,4})?(?:shell|bash))"
    r"(?:\s{1,4}(?:code|program|script|snippet|command))?\s{0,4}:?\s{0,4}"
)
_FENCE = re.compile(r"(?is)```(?:python|py|bash|sh|shell)?\n(?P<code>.*?)```")


def find_programs(text: str) -> Iterator[Wish]:
    """`run python: "print(6*7)"`, `run the shell command "ls"`, or either before a fenced block."""
    reached = 0
    for asked in _ASKS_PROGRAM.finditer(text):
        if asked.start() < reached:
            continue
        fenced = _FENCE.match(text, asked.end())
        if fenced is not None:
            found: tuple[str, int] | None = (fenced["code"], fenced.end())
        else:
            found = _quoted_at(text, asked.end())
        if found is not None and found[0].strip():
            reached = found[1]
            tool, argument = ("python", "code") if asked["python"] else ("shell", "command")
            arguments: JsonObject = {argument: found[0]}
            yield Wish(start=asked.start(), end=reached, tool=tool, arguments=arguments)


# --- the web --------------------------------------------------------------------------------------

_ASKS_FETCH = re.compile(
    r"(?i)\b(?:fetch|get|download|visit)\s{1,4}(?:the\s{1,4})?(?:(?:page|url)\s{1,4})?"
    r"[\"'`<]?(?P<url>https?://[^\s\"'`<>]{1,2000})"
)


def find_fetches(text: str) -> Iterator[Wish]:
    """`fetch https://example.com/a`. Which hosts may be asked is not decided here."""
    for asked in _ASKS_FETCH.finditer(text):
        arguments: JsonObject = {"url": asked["url"].rstrip(".,;:!?)")}
        yield Wish(start=asked.start(), end=asked.end(), tool="http_fetch", arguments=arguments)


FINDERS: tuple[Finder, ...] = (
    find_arithmetic,
    find_writes,
    find_reads,
    find_lists,
    find_programs,
    find_fetches,
)


# --- what is said ---------------------------------------------------------------------------------


def _shown(content: str) -> str:
    return content[:_MOST_QUOTED] + " (shortened)" * (len(content) > _MOST_QUOTED)


def _plain(wish: Wish, content: str) -> str:
    return f"{wish.tool} gave: {_shown(content)}"


def _said_sum(wish: Wish, content: str) -> str:
    return f"{wish.arguments['expression']} = {_shown(content)}."


def _said_write(wish: Wish, content: str) -> str:
    return f"Wrote {wish.arguments['path']} ({_shown(content)})."


def _said_read(wish: Wish, content: str) -> str:
    return f"{wish.arguments['path']} reads: {_shown(content)}"


def _said_list(wish: Wish, content: str) -> str:
    return f"Files in {wish.arguments['path']}: {_shown(content)}"


def _said_program(_: Wish, content: str) -> str:
    return f"The program wrote: {_shown(content)}"


_SENTENCES: dict[str, Callable[[Wish, str], str]] = {
    "calculator": _said_sum,
    "write_file": _said_write,
    "read_file": _said_read,
    "list_files": _said_list,
    "python": _said_program,
    "shell": _said_program,
}


def _refusal(wish: Wish, result: ToolResult) -> str:
    return f"{wish.tool} was refused or failed, so I stopped there: {_shown(result.content)}"


_EXAMPLES = {
    "calculator": "'what is 6*7'",
    "write_file": "'write \"hello\" to notes.txt'",
    "read_file": "'read notes.txt'",
    "list_files": "'list files'",
    "python": "'run python: \"print(6*7)\"'",
    "shell": "'run the shell command \"ls\"'",
    "http_fetch": "'fetch https://example.com/'",
}


def _nothing_understood(offered: set[str]) -> str:
    examples = [example for tool, example in _EXAMPLES.items() if tool in offered]
    can = f"I understand plain requests such as {', '.join(examples)}."
    if not examples:
        can = "None of the tools that I know how to use is offered to this run."
    return f"{SIGNATURE} I found no request that I understand. {can}"
