"""Checkpoints: a real one verifies, and nothing else passes for a log's or a witness's word.

Threat: Ledger tampering
"""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.transparency.checkpoint import (
    MAX_TREE_SIZE,
    Checkpoint,
    cosign,
    format_checkpoint,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
    verify_cosignature,
)
from app.transparency.merkle_tree import EMPTY_ROOT
from app.transparency.note import (
    COSIGNATURE,
    ED25519,
    Note,
    NoteError,
    SignerKey,
    VerifierKey,
    format_note,
    parse_note,
    signed,
    with_signatures,
)

BOUNDED = settings(max_examples=60, deadline=None, database=None)

# A checkpoint of a public test log, with the log's line of another type and four witnesses' lines.
REAL = """arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev \
zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9\
MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev \
ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden \
2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5\
BQ==
— witness1.smartit.nu/witness1 \
pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsU\
AQ==
— remora.n621.de \
2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWf\
Bw==
— witness.stagemole.eu \
Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9D\
Ag==
""".encode()
REAL_LOG = (
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
)
REAL_WITNESSES = [
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
]

ORIGIN = "meshflow.example/ledger/1"
SEED = b"l" * 32
LOG = SignerKey(name=ORIGIN, algorithm=ED25519, seed=SEED)
WITNESS = SignerKey(name="witness.example/w1", algorithm=COSIGNATURE, seed=b"w" * 32)
ROOT = bytes(range(32))
HEAD = Checkpoint(origin=ORIGIN, size=7, root=ROOT)
TEXT = format_checkpoint(HEAD)
ROOT_TEXT = base64.b64encode(ROOT).decode()
NOTE = sign_checkpoint(HEAD, SEED)


def test_a_real_checkpoint_opens_and_its_witnesses_are_believed() -> None:
    checkpoint = open_checkpoint(REAL, VerifierKey.parse(REAL_LOG))
    assert checkpoint.origin == "arche2025h1.staging.ct.transparency.dev"
    assert checkpoint.size == 1_432_088_532
    assert checkpoint.root.hex().startswith("53b58cefd8ebcf28")
    times = {verify_cosignature(parse_note(REAL), VerifierKey.parse(w)) for w in REAL_WITNESSES}
    assert times == {0x6A122120}
    assert format_note(parse_note(REAL)) == REAL


def test_a_real_checkpoint_with_another_size_is_nobodys() -> None:
    changed = REAL.replace(b"1432088532", b"1432088533")
    with pytest.raises(NoteError):
        open_checkpoint(changed, VerifierKey.parse(REAL_LOG))
    for witness in REAL_WITNESSES:
        with pytest.raises(NoteError):
            verify_cosignature(parse_note(changed), VerifierKey.parse(witness))


def test_a_checkpoint_signed_is_a_checkpoint_opened() -> None:
    assert f"{ORIGIN}\n7\n{ROOT_TEXT}\n" == TEXT
    assert NOTE.decode().startswith(f"{TEXT}\n— {ORIGIN} ")
    assert open_checkpoint(NOTE, LOG.verifier) == HEAD


def test_every_changed_byte_of_a_checkpoint_is_noticed() -> None:
    for at in range(len(NOTE)):
        for bit in (1, 0x20):
            data = NOTE[:at] + bytes([NOTE[at] ^ bit]) + NOTE[at + 1 :]
            with pytest.raises(NoteError):
                open_checkpoint(data, LOG.verifier)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"{ORIGIN}\n7\n{ROOT_TEXT}",
        f"{ORIGIN}\n7\n{ROOT_TEXT}\n\n",
        f"{ORIGIN}\n7\n{ROOT_TEXT}\nextension\n",
        f"{ORIGIN}\n7\n{ROOT_TEXT}\n{ROOT_TEXT}\n",
        f"\n{ORIGIN}\n7\n{ROOT_TEXT}\n",
        f"\n7\n{ROOT_TEXT}\n",
        f"{ORIGIN}\n7\n",
        f"{ORIGIN}\n{ROOT_TEXT}\n7\n",
        f"{ORIGIN}\n\n7\n{ROOT_TEXT}\n",
        *(
            f"{ORIGIN}\n{size}\n{ROOT_TEXT}\n"
            for size in [
                *[
                    "",
                    "07",
                    "00",
                    "+7",
                    "-7",
                    " 7",
                    "7 ",
                    "7_0",
                    "7.0",
                    "0x7",
                    "7e1",
                    "\N{ARABIC-INDIC DIGIT SEVEN}",
                    "seven",
                ],
                *["9223372036854775808", "18446744073709551616", "9" * 5000],
            ]
        ),
        *(
            f"{ORIGIN}\n7\n{root}\n"
            for root in [
                *["", ROOT_TEXT[:-1], ROOT_TEXT + "=", " " + ROOT_TEXT, ROOT_TEXT.rstrip("=")],
                *[base64.b64encode(ROOT[:31]).decode(), base64.b64encode(ROOT + b"\x00").decode()],
                *[ROOT_TEXT.replace("8=", "9="), ROOT.hex(), ROOT_TEXT.replace("E", "-")],
            ]
        ),
        f"{ORIGIN}\r\n7\r\n{ROOT_TEXT}\r\n",
        f"{ORIGIN}\x00\n7\n{ROOT_TEXT}\n",
        f"{ORIGIN}\n0\n{ROOT_TEXT}\n",
    ],
)
def test_another_spelling_is_no_checkpoint_signed_or_not(text: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(text)
    with pytest.raises(NoteError):
        open_checkpoint(format_note(signed(text, [LOG])), LOG.verifier)
    with pytest.raises(NoteError):
        cosign(text, WITNESS, 1)


@pytest.mark.parametrize(
    ("origin", "size", "root"),
    [
        ("", 7, ROOT),
        (f"{ORIGIN}\n8", 7, ROOT),
        ("a\rb", 7, ROOT),
        ("a\x00", 7, ROOT),
        (ORIGIN, -1, ROOT),
        (ORIGIN, MAX_TREE_SIZE + 1, ROOT),
        (ORIGIN, 7, b""),
        (ORIGIN, 7, ROOT[:31]),
        (ORIGIN, 7, ROOT + b"\x00"),
        (ORIGIN, 0, ROOT),
    ],
)
def test_there_is_no_checkpoint_of_impossible_parts(origin: str, size: int, root: bytes) -> None:
    with pytest.raises(NoteError):
        Checkpoint(origin=origin, size=size, root=root)


@pytest.mark.parametrize("origin", ["two words", "a+b", "a\u00a0b", "\ud800"])
def test_an_origin_that_is_no_key_name_is_not_signed(origin: str) -> None:
    with pytest.raises(NoteError):
        sign_checkpoint(Checkpoint(origin=origin, size=7, root=ROOT), SEED)


def test_an_origin_injected_before_the_own_one_is_refused() -> None:
    # The key is the log's own, the text another log's checkpoint.
    victim = Checkpoint(origin="victim.example", size=7, root=ROOT)
    data = format_note(signed(format_checkpoint(victim), [LOG]))
    with pytest.raises(NoteError, match="another origin"):
        open_checkpoint(data, LOG.verifier)
    for text in (f"victim.example\n{TEXT}", f"{TEXT}victim.example\n9\n{ROOT_TEXT}\n"):
        with pytest.raises(NoteError):
            open_checkpoint(format_note(signed(text, [LOG])), LOG.verifier)


def test_a_second_checkpoint_below_the_first_is_refused() -> None:
    with pytest.raises(NoteError):
        open_checkpoint(NOTE + b"\n" + NOTE, LOG.verifier)
    inner = format_note(signed(NOTE.decode(), [LOG]))
    with pytest.raises(NoteError):
        open_checkpoint(inner, LOG.verifier)


def test_a_checkpoint_of_another_key_of_the_same_name_is_refused() -> None:
    with pytest.raises(NoteError):
        open_checkpoint(sign_checkpoint(HEAD, b"m" * 32), LOG.verifier)


def test_a_cosignature_is_no_signature_of_the_log() -> None:
    same = SignerKey(name=ORIGIN, algorithm=COSIGNATURE, seed=SEED)
    data = format_note(signed(TEXT, [same], posix_seconds=5))
    for key in (LOG.verifier, same.verifier):
        with pytest.raises(NoteError):
            open_checkpoint(data, key)


def test_a_signature_of_the_log_is_no_cosignature() -> None:
    with pytest.raises(NoteError):
        cosign(TEXT, LOG, 5)
    with pytest.raises(NoteError):
        verify_cosignature(parse_note(NOTE), LOG.verifier)


def test_what_a_witness_signs_is_no_checkpoint_to_a_log_of_its_key() -> None:
    # Ed25519 over the cosigned message, taken out of its line and read as a log's note.
    log = SignerKey(name="cosignature/v1", algorithm=ED25519, seed=WITNESS.seed)
    message = f"cosignature/v1\ntime 5\n{TEXT}"
    blob = WITNESS.sign(TEXT, posix_seconds=5).signature[8:]
    line = log.sign(message)
    assert line.signature == blob
    with pytest.raises(NoteError):
        open_checkpoint(format_note(Note(text=message, signatures=(line,))), log.verifier)


def test_a_cosigned_checkpoint_tells_when_and_still_opens() -> None:
    data = with_signatures(NOTE, [cosign(TEXT, WITNESS, 1_700_000_000)])
    assert open_checkpoint(data, LOG.verifier) == HEAD
    assert verify_cosignature(parse_note(data), WITNESS.verifier) == 1_700_000_000


def test_a_cosignature_is_over_the_bytes_of_the_specification() -> None:
    line = cosign(TEXT, WITNESS, 1_679_315_147)
    blob = base64.b64decode(line.split(" ")[2])
    message = f"cosignature/v1\ntime 1679315147\n{ORIGIN}\n7\n{ROOT_TEXT}\n".encode()
    assert line.startswith("— witness.example/w1 ")
    assert line.endswith("\n")
    assert blob[:4] == WITNESS.verifier.key_id
    assert int.from_bytes(blob[4:12], "big") == 1_679_315_147
    assert blob[12:] == WITNESS._private_key().sign(message)


def test_the_newest_of_several_cosignatures_counts() -> None:
    lines = [cosign(TEXT, WITNESS, seconds) for seconds in (30, 10, 20)]
    note = parse_note(with_signatures(NOTE, lines))
    assert verify_cosignature(note, WITNESS.verifier) == 30


def test_a_bad_cosignature_beside_a_good_one_is_refused() -> None:
    other = format_checkpoint(Checkpoint(origin=ORIGIN, size=8, root=ROOT))
    lines = [cosign(TEXT, WITNESS, 10), cosign(other, WITNESS, 20)]
    with pytest.raises(NoteError):
        verify_cosignature(parse_note(with_signatures(NOTE, lines)), WITNESS.verifier)


def test_a_cosignature_for_another_checkpoint_or_of_nobody_is_refused() -> None:
    other = format_checkpoint(Checkpoint(origin=ORIGIN, size=8, root=ROOT))
    moved = with_signatures(NOTE, [cosign(other, WITNESS, 10)])
    for data in (NOTE, moved):
        with pytest.raises(NoteError):
            verify_cosignature(parse_note(data), WITNESS.verifier)


def test_a_note_that_is_no_checkpoint_has_no_cosignature() -> None:
    text = f"{TEXT}extension\n"
    note = signed(text, [WITNESS], posix_seconds=10)
    with pytest.raises(NoteError):
        verify_cosignature(note, WITNESS.verifier)


def test_the_empty_tree_has_a_checkpoint() -> None:
    empty = Checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT)
    assert open_checkpoint(sign_checkpoint(empty, SEED), LOG.verifier) == empty


@given(
    origin=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40),
    size=st.integers(1, MAX_TREE_SIZE),
    root=st.binary(min_size=32, max_size=32),
)
@BOUNDED
def test_a_checkpoint_written_is_read_back(origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin=origin, size=size, root=root)
    assert parse_checkpoint(format_checkpoint(checkpoint)) == checkpoint
