"""The proof file: written as the specification has it, read in no other spelling.

Threat: Ledger tampering
"""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.transparency.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from app.transparency.log_proof import (
    MAX_EXTRA_BYTES,
    LogProof,
    LogProofError,
    format_proof,
    parse_proof,
)
from app.transparency.merkle_tree import hash_leaf, tree_root, verify_inclusion
from app.transparency.note import ED25519, MAX_NOTE_BYTES, SignerKey
from app.transparency.tiles import grown, inclusion_proof

BOUNDED = settings(max_examples=60, deadline=None, database=None)
LOG = SignerKey(name="log.example", algorithm=ED25519, seed=b"l" * 32)
LEAVES = [hash_leaf(bytes([number])) for number in range(11)]
CHECKPOINT = sign_checkpoint(Checkpoint(origin=LOG.name, size=11, root=tree_root(LEAVES)), LOG.seed)
HASHES = inclusion_proof(6, 11, grown(0, {}, LEAVES))
PROOF = LogProof(index=6, hashes=HASHES, checkpoint=CHECKPOINT, extra=b"more")
GOOD = format_proof(PROOF)
LINES = [base64.b64encode(value).decode() for value in HASHES]
HEAD = "".join(line + "\n" for line in LINES)


def test_a_proof_has_the_lines_of_the_specification() -> None:
    first = "c2sp.org/tlog-proof@v1\nextra bW9yZQ==\nindex 6\n"
    assert f"{first}{HEAD}\n".encode() + CHECKPOINT == GOOD
    without = LogProof(index=0, hashes=(), checkpoint=CHECKPOINT)
    assert format_proof(without) == b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + CHECKPOINT


def test_a_proof_read_back_proves_its_leaf() -> None:
    proof = parse_proof(GOOD)
    assert proof == PROOF
    checkpoint = open_checkpoint(proof.checkpoint, LOG.verifier)
    assert verify_inclusion(
        leaf_hash=LEAVES[6],
        index=proof.index,
        size=checkpoint.size,
        proof=proof.hashes,
        root=checkpoint.root,
    )


def test_63_hashes_are_a_proof_and_64_are_not() -> None:
    full = LogProof(index=6, hashes=(b"h" * 32,) * 63, checkpoint=CHECKPOINT)
    assert parse_proof(format_proof(full)) == full
    with pytest.raises(LogProofError):
        LogProof(index=6, hashes=(b"h" * 32,) * 64, checkpoint=CHECKPOINT)
    line = base64.b64encode(b"h" * 32) + b"\n"
    for count in (64, 1000):
        with pytest.raises(LogProofError):
            parse_proof(b"c2sp.org/tlog-proof@v1\nindex 6\n" + line * count + b"\n" + CHECKPOINT)


@pytest.mark.parametrize(
    "extra", [b"\x00", b"x" * 100, b"\n\n", b"x" * MAX_EXTRA_BYTES], ids=["0", "x", "lf", "most"]
)
def test_extra_data_comes_back_whatever_it_holds(extra: bytes) -> None:
    proof = LogProof(index=6, hashes=HASHES, checkpoint=CHECKPOINT, extra=extra)
    assert parse_proof(format_proof(proof)) == proof


@pytest.mark.parametrize(
    ("index", "hashes", "checkpoint", "extra"),
    [
        (-1, HASHES, CHECKPOINT, None),
        (2**63, HASHES, CHECKPOINT, None),
        (6, (*HASHES, b""), CHECKPOINT, None),
        (6, (*HASHES, b"h" * 31), CHECKPOINT, None),
        (6, (b"h" * 33, *HASHES), CHECKPOINT, None),
        (6, HASHES, b"", None),
        (6, HASHES, CHECKPOINT[:-1], None),
        (6, HASHES, b"\n" + CHECKPOINT, None),
        (6, HASHES, CHECKPOINT + CHECKPOINT, None),
        (6, HASHES, CHECKPOINT, b""),
        (6, HASHES, CHECKPOINT, b"x" * (MAX_EXTRA_BYTES + 1)),
    ],
)
def test_impossible_parts_make_no_proof(
    index: int, hashes: tuple[bytes, ...], checkpoint: bytes, extra: bytes | None
) -> None:
    with pytest.raises(LogProofError):
        LogProof(index=index, hashes=hashes, checkpoint=checkpoint, extra=extra)


TEXT = GOOD.decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        TEXT[1:],
        TEXT[:-1],
        TEXT + "\n",
        "\n" + TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("@v1", "@v2"),
        TEXT.replace("@v1", "@v1 "),
        TEXT.replace("extra ", "extra"),
        TEXT.replace("extra ", "extra  "),
        TEXT.replace("extra bW9yZQ==", "extra "),
        TEXT.replace("extra bW9yZQ==", "extra"),
        TEXT.replace("bW9yZQ==", "bW9yZQ"),
        TEXT.replace("bW9yZQ==", "bW9yZR=="),
        TEXT.replace("extra bW9yZQ==", "extra bW9yZQ==\nextra bW9yZQ=="),
        TEXT.replace("extra bW9yZQ==\nindex 6\n", "index 6\nextra bW9yZQ==\n"),
        TEXT.replace("extra bW9yZQ==\n", "\n"),
        TEXT.replace("index 6\n", ""),
        TEXT.replace("index 6\n", "index 6\nindex 6\n"),
        TEXT.replace("index 6", "Index 6"),
        TEXT.replace("index 6", "index  6"),
        TEXT.replace("index 6", "index 6 "),
        TEXT.replace("index 6", "index 06"),
        TEXT.replace("index 6", "index +6"),
        TEXT.replace("index 6", "index -6"),
        TEXT.replace("index 6", "index \N{ARABIC-INDIC DIGIT SIX}"),
        TEXT.replace("index 6", "index 6_0"),
        TEXT.replace("index 6", "index 9223372036854775808"),
        TEXT.replace("index 6", "index " + "9" * 5000),
        TEXT.replace("index 6", "index "),
        TEXT.replace(LINES[0], LINES[0][:-1]),
        TEXT.replace(LINES[0], LINES[0] + "="),
        TEXT.replace(LINES[0], " " + LINES[0]),
        TEXT.replace(LINES[0], base64.b64encode(HASHES[0][:31]).decode()),
        TEXT.replace(LINES[0], base64.b64encode(HASHES[0] + b"\x00").decode()),
        TEXT.replace(LINES[0] + "\n", LINES[0] + "\n\n"),
        TEXT.replace(LINES[0] + "\n", LINES[0] + LINES[0] + "\n"),
        TEXT.replace(HEAD + "\n", HEAD),
        TEXT.replace(HEAD + "\n", HEAD + "\n\n"),
        TEXT.replace("log.example\n11\n", "log.example\n011\n"),
        TEXT.replace("log.example\n11\n", "log.example\n\n11\n"),
        TEXT.replace("\n\n— ", "\nextension\n\n— "),
        TEXT[: TEXT.index("\n\n— ") + 2],
    ],
)
def test_another_spelling_is_no_proof(text: str) -> None:
    with pytest.raises(LogProofError):
        parse_proof(text.encode())


def test_bytes_that_are_no_text_or_too_many_are_no_proof() -> None:
    for data in (b"\xff" + GOOD, GOOD.replace(b"index", b"ind\xffx"), GOOD + b"\xff"):
        with pytest.raises(LogProofError):
            parse_proof(data)
    with pytest.raises(LogProofError):
        parse_proof(GOOD[:-1] + b"x" * (4 * MAX_NOTE_BYTES) + b"\n")


@given(start=st.integers(0, len(GOOD)), cut=st.integers(0, 60), put=st.binary(max_size=3))
@BOUNDED
def test_a_proof_has_one_spelling_and_anything_else_is_a_proof_error(
    start: int, cut: int, put: bytes
) -> None:
    data = GOOD[:start] + put + GOOD[start + cut :]
    try:
        proof = parse_proof(data)
    except LogProofError:
        return
    assert format_proof(proof) == data
