"""Takes the escapes of quoted shell text away, and tells text that would run if evaluated."""

import re

from app.domain.errors import UnreadableShellError

_ANSI_C = re.compile(
    r"\\(?:([abeEfnrtv\\'\"?])|([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})"
    r"|U([0-9A-Fa-f]{1,8})|c([A-Za-z])|(.?))",
    re.DOTALL,
)
_LETTERS = dict(zip("abeEfnrtv\\'\"?", "\a\b\x1b\x1b\f\n\r\t\v\\'\"?", strict=True))
_BACKQUOTED = re.compile(r"\\([\\$`])")
# Written out, at the end of a part that something follows, or as printf and echo -e write them.
_LATENT = re.compile(r"`|\$[({\[]|\$(?:\0|$)|\\(?:0*44|x24|[uU]0*24|0*140|x60|[uU]0*60)")


def decoded_ansi_c(text: str) -> str:
    r"""What stands for `$'text'`. UnreadableShellError for what shells decode differently.

    A NUL would end the text for one reader and not for another, a byte above 127 is a character
    only to some, and an unknown escape keeps its backslash only in some.
    """
    return _ANSI_C.sub(_decoded, text)


def _decoded(found: re.Match[str]) -> str:
    letter, octal, hexadecimal, short, long, control, other = found.groups()
    if letter is not None:
        return _LETTERS[letter]
    if control is not None:
        return chr(ord(control.upper()) & 0x1F)
    number = None if octal is None else int(octal, 8) & 0xFF
    for digits in (hexadecimal, short, long):
        number = int(digits, 16) if digits is not None else number
    is_byte = octal is not None or hexadecimal is not None
    if other is not None or not number or number > (0x7F if is_byte else 0x10FFFF):
        raise UnreadableShellError("the command is not well formed")
    return chr(number)


def without_backslashes(text: str) -> str:
    r"""What a command between backquotes is: `\\`, `\$` and an escaped backquote lose one."""
    return _BACKQUOTED.sub(r"\1", text)


def latent(text: str) -> bool:
    """Whether an evaluation of this text could run a command."""
    return _LATENT.search(text) is not None
