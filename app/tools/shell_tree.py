"""What a shell command is once it is read: a tree of simple commands and of the words in them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """Characters that stand for themselves."""

    text: str
    is_quoted: bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """A plain `$name`: known when the name was assigned a text that is known."""

    name: str
    is_quoted: bool


@dataclass(frozen=True, slots=True)
class Opaque:
    """What only running tells; `is_split` when it may become any number of words."""

    is_split: bool


@dataclass(frozen=True, slots=True)
class Glob:
    """A sign of a pattern; `[` is one only when the word closes it."""

    sign: str


Piece = Text | Parameter | Opaque | Glob


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """The pieces of a word, and what runs or is assigned while it is expanded."""

    pieces: tuple[Piece, ...]
    programs: tuple["Program", ...] = ()
    assigned: tuple[str, ...] = ()

    @property
    def bare(self) -> str | None:
        """The text when nothing in the word is quoted or expanded, as reserved words must be."""
        match self.pieces:
            case (Text(text=text, is_quoted=False),):
                return text
            case _:
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """`name=value`; without a value it is an array, an element or an addition."""

    name: str
    value: Word | None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """`>target`, or a here-document, whose target is its body."""

    operator: str
    target: Word
    variable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Simple:
    """Assignments, a name with its arguments, redirections: each may be missing."""

    assignments: tuple[Assignment, ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A compound command: what runs in it, and the words and names its head has."""

    # Nothing is known of whether and how often the parts run, unless it is a plain group.
    is_group: bool
    parts: tuple["Program", ...]
    # The first part is a condition: it runs before the others, for certain.
    is_tested: bool = False
    words: tuple[Word, ...] = ()
    assigned: tuple[str, ...] = ()
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function: its body runs later, with arguments nobody knows."""

    name: str
    body: Block


Command = Simple | Block | Function


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Pipelines joined by `&&` and `||`, the first of which runs for certain."""

    pipelines: tuple[tuple[Command, ...], ...]
    is_background: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Chains, one after the other."""

    chains: tuple[Chain, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellText:
    """A whole command as read."""

    program: Program
    # Quoted text that would run if something evaluated it: `$(`, a backquote.
    is_latent: bool
    # Arithmetic on names, or a computed subscript: both evaluate the text they find.
    is_evaluating: bool
    # Everything quoted or plain, for what may be put together from parts.
    literals: tuple[str, ...]
