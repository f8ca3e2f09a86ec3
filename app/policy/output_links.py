"""Takes links, images and markup that lead to undeclared places out of an answer.

A CommonMark parser is the judge: what it finds is taken out, and the text is parsed again until it
finds nothing. What still leads somewhere then is refused. Code is left as it is: no renderer makes
a link of it. Work grows with the text; callers bound it.

Threat: Exfiltration via web/shell tools
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from markdown_it import MarkdownIt
from markdown_it.token import Token

from app.domain.errors import MeshFlowError
from app.domain.run import Json
from app.policy.declared_places import DeclaredPlaces, bare_links

LINK_REMOVED: Final = "[link removed]"
IMAGE_REMOVED: Final = "[image removed]"
_ROUNDS: Final = 6  # a cut can join what it stood between; more rounds than that is an attack
_SIGNS: Final = frozenset("<[:/&?.")  # a text without any of them leads nowhere
_MARKUP: Final = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>&"})
_OPENERS: Final = "#+-=>~|"


class UncleanOutputError(MeshFlowError):
    """The text still leads to undeclared places after the last round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedText:
    """The text, and how many of each kind were taken out of it: link, image, html."""

    text: str
    removed: Mapping[str, int]


def cleaned_text(text: str, places: DeclaredPlaces) -> CleanedText:
    """A Markdown text in which every link and image leads to a declared place.

    UncleanOutputError when it does not settle.
    """
    removed: Counter[str] = Counter()
    for _ in range(_ROUNDS):
        if _SIGNS.isdisjoint(text):
            return CleanedText(text=text, removed=removed)
        clean = _Round(text, places, removed).cleaned()
        if clean == text:
            return CleanedText(text=text, removed=removed)
        text = clean
    raise UncleanOutputError("the text does not settle")


def cleaned_json(value: Json, places: DeclaredPlaces, removed: Counter[str]) -> Json:
    """A JSON value in which each text is clean; names stay, for a schema speaks of them."""
    match value:
        case str():
            clean = cleaned_text(value, places)
            removed.update(clean.removed)
            return clean.text
        case list():
            return [cleaned_json(item, places, removed) for item in value]
        case dict():
            return {key: cleaned_json(item, places, removed) for key, item in value.items()}
        case _:
            return value


class _EveryLink(MarkdownIt):
    """A parser for which every destination counts, also one it would not follow: others may."""

    def validateLink(self, url: str) -> bool:  # noqa: N802, ARG002  # the library's signature
        return True


_PARSER: Final = _EveryLink("commonmark", {"html": True})


class _Round:
    """One parse of a text and one cut of everything it found."""

    def __init__(self, text: str, places: DeclaredPlaces, removed: Counter[str]) -> None:
        self._lines = text.split("\n")
        self._text = text
        self._places = places
        self._removed = removed

    def cleaned(self) -> str:
        env: dict[str, object] = {}
        tokens = _PARSER.parse(self._text, env)
        for first, last in self._undeclared_definitions(env):
            self._lines[first:last] = [""] * (last - first)
            self._removed["link"] += 1
        for token in tokens:
            if token.map is None:
                continue
            if token.type == "html_block":
                self._escape(*token.map)
            elif token.type == "inline" and self._is_unclean(token.children or []):
                self._write_again(token)
        return "\n".join(self._lines)

    def _undeclared_definitions(self, env: Mapping[str, object]) -> Iterator[tuple[int, int]]:
        named = cast("Mapping[str, Mapping[str, object]]", env.get("references", {}))
        again = cast("Sequence[Mapping[str, object]]", env.get("duplicate_refs", []))
        for definition in (*named.values(), *again):
            if not self._places.allows_link(str(definition["href"])):
                first, last = cast("tuple[int, int]", definition["map"])
                yield first, last

    def _escape(self, first: int, last: int) -> None:
        self._removed["html"] += 1
        for at in range(first, last):
            self._lines[at] = self._lines[at].replace("<", "&lt;")

    def _is_unclean(self, children: Sequence[Token]) -> bool:
        return any(self._offends(child) for child in children)

    def _offends(self, token: Token) -> bool:
        match token.type:
            case "image" | "html_inline":
                return token.type == "html_inline" or not self._places.allows_image(_place(token))
            case "link_open":
                return not self._places.allows_link(_place(token))
            case "text":
                return any(True for _ in bare_links(token.content, self._places))
            case _:
                return False

    def _write_again(self, token: Token) -> None:
        """Put the block's text anew, line for line, behind whatever opens its lines."""
        first, last = token.map or (0, 0)
        old = token.content.split("\n")
        new = "".join(self._written(token.children or [])).split("\n")
        if len(new) > len(old):
            new = [*new[: len(old) - 1], " ".join(new[len(old) - 1 :])]
        at = first
        for number, line in enumerate(old):
            # Lines of a definition may stand before the text of the block that the map covers.
            while at < last and line.strip() not in self._lines[at]:
                at += 1
            if at == last:
                self._lines[first:last] = [" ".join(new)] + [""] * (last - first - 1)
                return
            fresh = new[number] if number < len(new) else ""
            before, _, after = self._lines[at].rpartition(line.strip())
            self._lines[at] = f"{before}{fresh}{after}"
            at += 1

    def _written(self, children: Sequence[Token]) -> Iterator[str]:
        closes: list[str] = []
        starts_line = True
        for child in children:
            piece = self._piece(child, closes)
            yield _at_line_start(piece) if starts_line and child.type == "text" else piece
            starts_line = child.type in ("softbreak", "hardbreak")

    def _piece(self, child: Token, closes: list[str]) -> str:
        match child.type:
            case "text":
                return self._plain(child.content)
            case "code_inline":
                return _fenced(child)
            case "softbreak" | "hardbreak":
                return "\n" if child.type == "softbreak" else "\\\n"
            case "html_inline":
                self._removed["html"] += 1
                return child.content.translate(_MARKUP)
            case "image":
                return self._image(child)
            case "link_open":
                return self._link(child, closes)
            case "link_close":
                return closes.pop()
            case _:  # emphasis and its like
                return child.markup

    def _plain(self, content: str) -> str:
        pieces, at = [], 0
        for start, end in bare_links(content, self._places):
            pieces += [content[at:start].translate(_MARKUP), LINK_REMOVED]
            self._removed["link"] += 1
            at = end
        return "".join((*pieces, content[at:].translate(_MARKUP)))

    def _image(self, token: Token) -> str:
        alt = token.content.translate(_MARKUP).replace("\n", " ")
        if self._places.allows_image(_place(token)):
            return f"![{alt}](<{_place(token)}>)"
        self._removed["image"] += 1
        return IMAGE_REMOVED

    def _link(self, token: Token, closes: list[str]) -> str:
        if self._places.allows_link(_place(token)):
            closes.append(f"](<{_place(token)}>)")
            return "["
        self._removed["link"] += 1
        closes.append(f" {LINK_REMOVED}")
        return ""


def _place(token: Token) -> str:
    return str(token.attrs.get("src" if token.type == "image" else "href", ""))


def _fenced(token: Token) -> str:
    fence = "`" * (max(map(len, _runs_of_ticks(token.content)), default=0) + 1)
    return f"{fence} {token.content} {fence}" if "`" in token.content else f"`{token.content}`"


def _runs_of_ticks(text: str) -> list[str]:
    return [run for run in "".join(c if c == "`" else " " for c in text).split(" ") if run]


def _at_line_start(text: str) -> str:
    """What would open a block at the start of a line, written so that it does not."""
    if text[:1] and text[0] in _OPENERS:
        return "\\" + text
    digits = len(text) - len(text.lstrip("0123456789"))
    if digits and text[digits : digits + 1] in {".", ")"}:
        return f"{text[:digits]}\\{text[digits:]}"
    return text
