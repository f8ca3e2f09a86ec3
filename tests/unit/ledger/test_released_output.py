"""The final record binds the output as it is sealed, and tells nothing of it."""

import json

import pytest

from app.ledger.canonical import canonical
from app.ledger.released_output import is_released, released_note
from app.ledger.sealing import open_result, seal_result
from tests.support.independent_reader import keyed_digest

RUN_KEY, OTHER_KEY = bytes(range(32)), bytes(32)
LOG, RUN = b"l" * 16, b"r" * 16


@pytest.mark.parametrize(
    "text", ["", "391", "Grüße, 東京 \U0001f600", "half a pair \ud800, twice \udfff"]
)
def test_what_is_sealed_and_opened_again_is_what_was_released(text: str) -> None:
    note = canonical(released_note(RUN_KEY, text))
    sealed = seal_result(OTHER_KEY, text, log=LOG, run=RUN, nonce=bytes(12))
    opened = open_result(OTHER_KEY, sealed, log=LOG, run=RUN)
    assert is_released(RUN_KEY, opened, note)
    assert not is_released(RUN_KEY, opened + " ", note)
    assert not is_released(OTHER_KEY, opened, note)


def test_the_digest_is_the_one_of_the_published_format() -> None:
    digest = keyed_digest(RUN_KEY, "output", "Grüße".encode()).hex()
    assert released_note(RUN_KEY, "Grüße") == {"released": digest}


@pytest.mark.parametrize("change", [b"", b"{}", b"null", b'{"released":null}', b"\xff"])
def test_another_note_releases_nothing(change: bytes) -> None:
    note = canonical(released_note(RUN_KEY, "391"))
    for other in (change, note + b" ", note.upper(), json.dumps(json.loads(note)).encode()):
        assert not is_released(RUN_KEY, "391", other)
