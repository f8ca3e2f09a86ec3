"""Marks text of outside origin in what a model reads, by a word that its author cannot know.

It helps an honest model. Nothing relies on it, and no credit is taken for it.
"""

import re
from typing import Final

_MARKED: Final = re.compile(r"\[result ([a-z2-7]+)\]\n(.*)\n\[end of result \1\]", re.DOTALL)


def marked(content: str, word: str) -> str:
    """What a tool gave back, between two lines that only this run's word makes."""
    return f"[result {word}]\n{content}\n[end of result {word}]" if word else content


def unmarked(content: str) -> str:
    """The content alone, for readers that are no models."""
    found = _MARKED.fullmatch(content)
    return content if found is None else found.group(2)
