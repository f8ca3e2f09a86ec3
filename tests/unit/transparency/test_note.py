"""Signed notes: the published ones verify, and no other spelling, key or signature gets through.

Threat: Ledger tampering
"""

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from app.transparency import note as note_module
from app.transparency.note import (
    COSIGNATURE,
    ED25519,
    MAX_NOTE_BYTES,
    MAX_POSIX_SECONDS,
    Note,
    NoteError,
    NoteSignature,
    SignerKey,
    VerifierKey,
    cosigned_at,
    decode_base64,
    format_note,
    format_signature,
    parse_note,
    parse_signature_line,
    signed,
    verified,
    verifier_key,
    with_signatures,
)

BOUNDED = settings(max_examples=60, deadline=None, database=None)

# The example of the signed-note specification, and those of the Go implementation's tests.
SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
    "\n"
).encode()
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
PETER_LINE = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    "\n"
)
ENOCH_LINE = (
    "— EnochRoot "
    "rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ="
    "\n"
)

# RFC 8032 section 7.1: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd"
            "454d4423643ce80e2a9ac94fa54ca49f"
        ),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
            "3dca179c138ac17ad9bef1177331a704"
        ),
    ),
]

TEXT = "first line\n\nthird line\n"
ANNA = SignerKey(name="anna.example/log", algorithm=ED25519, seed=b"a" * 32)
BERTA = SignerKey(name="berta.example", algorithm=ED25519, seed=b"b" * 32)
WITNESS = SignerKey(name="witness.example/w1", algorithm=COSIGNATURE, seed=b"w" * 32)
SIGNED = signed(TEXT, [ANNA, BERTA, WITNESS], posix_seconds=1_700_000_000)
KEYS = tuple(signer.verifier for signer in (ANNA, BERTA, WITNESS))
LINE = format_signature(SIGNED.signatures[0])


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def forged(name: str, key_id: bytes, signature: bytes, text: str = TEXT) -> Note:
    line = NoteSignature(name=name, key_id=key_id, signature=signature)
    return Note(text=text, signatures=(line,))


@pytest.mark.parametrize(("seed", "public_key", "message", "signature"), RFC_8032)
def test_the_vectors_of_rfc_8032_come_out(
    seed: str, public_key: str, message: str, signature: str
) -> None:
    signer = SignerKey(name="rfc8032", algorithm=ED25519, seed=bytes.fromhex(seed))
    assert signer.verifier.public_key.hex() == public_key
    assert signer._private_key().sign(bytes.fromhex(message)).hex() == signature


def test_the_note_of_the_specification_verifies() -> None:
    key = VerifierKey.parse(SPEC_KEY)
    note = parse_note(SPEC_NOTE)
    assert note.text == "This is an example message.\n"
    assert verified(note, [key]) == (key,)
    assert format_note(note) == SPEC_NOTE


def test_the_notes_of_the_go_implementation_verify_and_are_signed_byte_for_byte() -> None:
    peter, enoch = VerifierKey.parse(PETER_KEY), VerifierKey.parse(ENOCH_KEY)
    data = f"{GO_TEXT}\n{PETER_LINE}{ENOCH_LINE}".encode()
    assert verified(parse_note(data), [enoch, peter]) == (peter, enoch)
    signers = [
        SignerKey(name="PeterNeumann", algorithm=ED25519, seed=PETER_SEED),
        SignerKey(name="EnochRoot", algorithm=ED25519, seed=bytes(32)),
    ]
    assert format_note(signed(GO_TEXT, signers)) == data
    assert [signer.verifier.encode() for signer in signers] == [PETER_KEY, ENOCH_KEY]


@pytest.mark.parametrize(
    "vkey",
    [
        SPEC_KEY,
        PETER_KEY,
        "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6",
        "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    ],
)
def test_a_published_verifier_key_is_read_and_written_back(vkey: str) -> None:
    key = VerifierKey.parse(vkey)
    assert key.encode() == vkey
    assert verifier_key(key.name, key.algorithm, key.public_key) == key


def test_no_part_and_no_neighbour_of_a_verifier_key_is_one() -> None:
    for start in range(len(PETER_KEY)):
        for end in range(start + 1, len(PETER_KEY) + 1):
            if (start, end) != (0, len(PETER_KEY)):
                with pytest.raises(NoteError):
                    VerifierKey.parse(PETER_KEY[start:end])
    for at, sign in enumerate(PETER_KEY):
        with pytest.raises(NoteError):
            VerifierKey.parse(PETER_KEY[:at] + chr(ord(sign) + 1) + PETER_KEY[at + 1 :])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a",
        "++",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        PETER_KEY + "\n",
        " " + PETER_KEY,
        PETER_KEY + "=",
        PETER_KEY.replace("c74f20a3", "0xc74f20"),
        PETER_KEY.replace("c74f20a3", "c74f20a3 "),
        PETER_KEY.replace("PeterNeumann", "Peter\u2003Neumann"),
        PETER_KEY.replace("PeterNeumann", "Peter\udc80"),
        "PeterNeumann+c74f20a3+",
    ],
)
def test_another_spelling_of_a_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize("algorithm", [-1, 0, 2, 3, 5, 6, 0xFF, 0x101])
def test_a_key_of_another_signature_type_is_refused(algorithm: int) -> None:
    with pytest.raises(NoteError):
        verifier_key("a", algorithm, KEYS[0].public_key)
    with pytest.raises(NoteError):
        SignerKey(name="a", algorithm=algorithm, seed=b"a" * 32)
    if 0 <= algorithm <= 0xFF:
        encoded = bytes([algorithm]) + KEYS[0].public_key
        key_id = sha256(b"a\n" + encoded).hexdigest()[:8]
        with pytest.raises(NoteError):
            VerifierKey.parse(f"a+{key_id}+{base64.b64encode(encoded).decode()}")


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\tb", "a\nb", "a\x00", "a\x1f", "a\u00a0b", "\u2028", "\ud800"]
)
def test_a_name_that_a_note_cannot_hold_is_no_key_name(name: str) -> None:
    with pytest.raises(NoteError):
        verifier_key(name, ED25519, KEYS[0].public_key)
    with pytest.raises(NoteError):
        SignerKey(name=name, algorithm=ED25519, seed=b"a" * 32)
    with pytest.raises(NoteError):
        format_note(forged(name, b"abcd", bytes(64)))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(NoteError):
        verifier_key("a", ED25519, b"\x05" * size)
    with pytest.raises(NoteError):
        SignerKey(name="a", algorithm=ED25519, seed=b"\x05" * size)


def test_a_key_id_must_be_that_of_the_key() -> None:
    for at in range(4):
        with pytest.raises(NoteError):
            VerifierKey(
                name=KEYS[0].name,
                key_id=flipped(KEYS[0].key_id, at),
                algorithm=ED25519,
                public_key=KEYS[0].public_key,
            )


# The curve of RFC 8032 section 5.1, to check the list of weak keys against its meaning.
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493
Point = tuple[int, int]


def plus(one: Point, two: Point) -> Point:
    (x1, y1), (x2, y2) = one, two
    both = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + both, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - both, -1, P)
    return x % P, y % P


def points(y: int) -> set[Point]:
    """The points of this height: none, one or two."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    roots = {root, root * pow(2, (P - 1) // 4, P) % P}
    return {(x, y) for r in roots for x in (r, -r % P) if x * x % P == square}


def test_the_weak_keys_are_all_eight_points_of_small_order() -> None:
    weak = {point for y in note_module._SMALL_ORDER_Y for point in points(y)}
    assert len(weak) == 8
    for point in weak:
        double = plus(point, point)
        fourfold = plus(double, double)
        assert plus(fourfold, fourfold) == (0, 1)


def test_a_key_under_which_one_signature_holds_for_every_text_is_refused() -> None:
    neutral = (1).to_bytes(32, "little")
    anything = neutral + bytes(32)
    Ed25519PublicKey.from_public_bytes(neutral).verify(anything, b"whatever the text")
    for y in (*note_module._SMALL_ORDER_Y, P, P + 1, 2**255 - 1):
        for sign in (0, 1 << 255):
            with pytest.raises(NoteError):
                verifier_key("a", ED25519, (y | sign).to_bytes(32, "little"))


def test_a_signer_does_not_show_its_seed() -> None:
    assert "seed" not in repr(ANNA)
    assert repr(b"a" * 32) not in repr(ANNA)


def test_a_note_of_several_keys_verifies_in_the_order_of_its_lines() -> None:
    note = parse_note(format_note(SIGNED))
    assert note == SIGNED
    assert verified(note, KEYS[::-1]) == KEYS
    for key in KEYS:
        assert verified(note, [key]) == (key,)
    assert cosigned_at(note.signatures[2]) == 1_700_000_000


def test_any_changed_byte_of_a_signature_rejects_the_note() -> None:
    for number, line in enumerate(SIGNED.signatures):
        for at in range(len(line.signature)):
            bad = NoteSignature(
                name=line.name, key_id=line.key_id, signature=flipped(line.signature, at)
            )
            others = SIGNED.signatures[:number] + SIGNED.signatures[number + 1 :]
            with pytest.raises(NoteError):
                verified(Note(text=TEXT, signatures=(*others, bad)), KEYS)


@pytest.mark.parametrize(
    "text", [TEXT + "x\n", TEXT[1:], TEXT + "\n", TEXT.replace("f", "F"), TEXT.rstrip("\n")]
)
def test_a_changed_text_rejects_the_note(text: str) -> None:
    for key in KEYS:
        with pytest.raises(NoteError):
            verified(Note(text=text, signatures=SIGNED.signatures), [key])


@pytest.mark.parametrize("size", [1, 8, 63, 65, 71, 72, 73, 128])
def test_a_signature_of_another_length_rejects_the_note(size: int) -> None:
    for key, line in zip(KEYS, SIGNED.signatures, strict=True):
        if size != len(line.signature):
            resized = (line.signature + bytes(128))[:size]
            with pytest.raises(NoteError):
                verified(forged(line.name, line.key_id, resized), [key])


def test_a_signature_in_its_second_spelling_is_refused() -> None:
    line = SIGNED.signatures[0]
    s = int.from_bytes(line.signature[32:], "little") + ORDER
    twin = line.signature[:32] + s.to_bytes(32, "little")
    with pytest.raises(NoteError):
        verified(forged(line.name, line.key_id, twin), [KEYS[0]])


def test_a_line_of_an_unknown_key_is_passed_over_whatever_it_says() -> None:
    known, other = SIGNED.signatures[0], BERTA.verifier
    strangers = [
        NoteSignature(name=other.name, key_id=other.key_id, signature=bytes(64)),
        NoteSignature(name=known.name, key_id=b"\x00\x01\x02\x03", signature=b"x"),
        NoteSignature(name="other.example", key_id=known.key_id, signature=bytes(64)),
    ]
    note = Note(text=TEXT, signatures=(*strangers, known))
    assert verified(note, [KEYS[0]]) == (KEYS[0],)
    with pytest.raises(NoteError):
        verified(Note(text=TEXT, signatures=tuple(strangers)), [KEYS[0]])


def test_an_unknown_key_of_the_same_name_signs_nothing() -> None:
    impostor = SignerKey(name=ANNA.name, algorithm=ED25519, seed=b"m" * 32)
    with pytest.raises(NoteError):
        verified(signed(TEXT, [impostor]), [ANNA.verifier])


def test_another_key_behind_a_known_name_and_key_id_rejects_the_note() -> None:
    impostor = SignerKey(name=ANNA.name, algorithm=ED25519, seed=b"m" * 32)
    signature = impostor.sign(TEXT).signature
    with pytest.raises(NoteError):
        verified(forged(ANNA.name, ANNA.verifier.key_id, signature), [ANNA.verifier])


def test_a_bad_line_of_a_known_key_rejects_what_a_good_one_signed() -> None:
    good = SIGNED.signatures[0]
    bad = NoteSignature(name=good.name, key_id=good.key_id, signature=bytes(64))
    for lines in [(good, bad), (bad, good)]:
        with pytest.raises(NoteError):
            verified(Note(text=TEXT, signatures=lines), [KEYS[0]])


def test_a_key_that_signed_twice_counts_once() -> None:
    note = Note(text=TEXT, signatures=SIGNED.signatures[:1] * 3)
    assert verified(note, KEYS) == (KEYS[0],)
    assert verified(SIGNED, [*KEYS, *KEYS]) == KEYS


def test_two_known_keys_of_one_name_and_key_id_are_refused() -> None:
    # A collision of 32 bits is found in a moment; any 32 bytes do as a public key here.
    found: dict[bytes, bytes] = {}
    for number in range(2**20):
        public_key = b"\x07" * 24 + number.to_bytes(8, "big")
        key_id = sha256(b"a\n\x01" + public_key).digest()[:4]
        if key_id in found:
            break
        found[key_id] = public_key
    twins = [verifier_key("a", ED25519, other) for other in (found[key_id], public_key)]
    assert twins[0].key_id == twins[1].key_id
    with pytest.raises(NoteError, match="two keys"):
        verified(SIGNED, [*KEYS, *twins])


def test_no_keys_verify_nothing() -> None:
    with pytest.raises(NoteError):
        verified(SIGNED, [])


def test_a_signature_of_one_type_is_none_of_the_other() -> None:
    log = SignerKey(name="one.example", algorithm=ED25519, seed=b"o" * 32)
    witness = SignerKey(name="one.example", algorithm=COSIGNATURE, seed=b"o" * 32)
    assert log.verifier.key_id != witness.verifier.key_id
    plain = log.sign(TEXT).signature
    stamped = witness.sign(TEXT, posix_seconds=5).signature
    for signature in (stamped, stamped[8:]):
        with pytest.raises(NoteError):
            verified(forged(log.name, log.verifier.key_id, signature), [log.verifier])
    for signature in (plain, bytes(8) + plain, (5).to_bytes(8, "big") + plain):
        with pytest.raises(NoteError):
            verified(forged(log.name, witness.verifier.key_id, signature), [witness.verifier])


def test_the_time_of_a_cosignature_is_signed() -> None:
    line = SIGNED.signatures[2]
    for seconds in (0, 1_700_000_001, 2**63, 2**64 - 1):
        moved = seconds.to_bytes(8, "big") + line.signature[8:]
        with pytest.raises(NoteError):
            verified(forged(line.name, line.key_id, moved), [KEYS[2]])
    late = NoteSignature(name="w", key_id=b"abcd", signature=b"\xff" * 72)
    with pytest.raises(NoteError):
        cosigned_at(late)
    with pytest.raises(NoteError):
        cosigned_at(SIGNED.signatures[0])


@pytest.mark.parametrize(
    ("signer", "seconds"),
    [(ANNA, 5), (WITNESS, None), (WITNESS, -1), (WITNESS, MAX_POSIX_SECONDS + 1)],
)
def test_a_time_that_does_not_fit_the_key_signs_nothing(
    signer: SignerKey, seconds: int | None
) -> None:
    with pytest.raises(NoteError):
        signer.sign(TEXT, posix_seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "no end", "a\r\n", "a\x00\n", "a\tb\n", "\ud800\n", "a\x1f\n"]
)
def test_a_text_that_a_note_cannot_hold_is_not_signed(text: str) -> None:
    with pytest.raises(NoteError):
        ANNA.sign(text)
    with pytest.raises(NoteError):
        format_note(Note(text=text, signatures=SIGNED.signatures))


def test_nobody_signs_no_note() -> None:
    with pytest.raises(NoteError):
        signed(TEXT, [])
    with pytest.raises(NoteError):
        format_note(Note(text=TEXT, signatures=()))


GOOD = format_note(SIGNED)
BODY, LINES = TEXT.encode(), GOOD[len(TEXT) + 1 :]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"\n\n\n",
        BODY,
        BODY + b"\n",
        BODY + LINES,  # the empty line of the text divides it from what are no signature lines
        b"a\n" + LINES,  # no empty line at all
        GOOD[:-1],
        GOOD[:-1] + b"x",
        GOOD + b"\n",
        GOOD + b"\n\n",
        GOOD + b"x",
        GOOD + b"x\n",
        GOOD + b"\n" + BODY,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD[:-1] + b"\r\n",
        GOOD.replace(b"first", b"fir\rst"),
        GOOD.replace(b"first", b"fir\x00st"),
        GOOD.replace(b"first", b"fir\tst"),
        GOOD.replace(b"first", b"fir\x1fst"),
        GOOD.replace(b"first", b"fir\xffst"),
        GOOD.replace(b"first", b"fir\xc0\xafst"),
        GOOD.replace(b"first", b"fir\xed\xa0\x80st"),
        GOOD.replace("— ".encode(), b"- "),
        GOOD.replace("— ".encode(), "\N{EN DASH}\u2009".encode()),
        GOOD.replace("— ".encode(), "—".encode()),
        GOOD.replace("— ".encode(), "—  ".encode()),
        GOOD.replace("— ".encode(), " — ".encode()),
        GOOD.replace(b"anna.example/log ", b"anna.example/log  "),
        GOOD.replace(b"anna.example/log ", b""),
        GOOD.replace(b"anna.example/log ", b" "),
        GOOD.replace(b"anna.example/log", b"anna+example"),
        GOOD.replace(b"anna.example/log", "anna\u00a0log".encode()),
        GOOD.replace(b"=\n", b"\n"),
        GOOD.replace(b"=\n", b"= \n"),
        GOOD.replace(b"=\n", b"= x\n"),
        f"{TEXT}\n— a \n".encode(),
        f"{TEXT}\n— a AAAA\n".encode(),  # three bytes
        f"{TEXT}\n— a AAAAAA==\n".encode(),  # a key id and nothing else
        f"{TEXT}\n— a AAAAAAB=\n".encode(),  # a spare bit set
        f"{TEXT}\n— a AAAAA AAA\n".encode(),
        f"{TEXT}\n— a AAAA_AAA\n".encode(),
        f"{TEXT}\n— a AAAAAAÄÄ\n".encode(),
    ],
)
def test_another_spelling_is_no_note(data: bytes) -> None:
    with pytest.raises(NoteError):
        parse_note(data)


def test_the_last_empty_line_divides() -> None:
    for text in ["\n", "a\n\n", "a\n\n\n", f"a\n\n{LINE}", f"{LINE}\n{LINE}", f"\n\n{LINE}"]:
        note = signed(text, [ANNA])
        assert parse_note(format_note(note)) == note
        assert verified(note, [ANNA.verifier])


def test_a_signature_block_in_the_text_signs_nothing() -> None:
    mallory = SignerKey(name="mallory.example", algorithm=ED25519, seed=b"m" * 32)
    outer = signed(GOOD.decode(), [mallory])
    assert parse_note(format_note(outer)).text == GOOD.decode()
    with pytest.raises(NoteError):
        verified(parse_note(format_note(outer)), KEYS)


def test_there_is_an_end_to_the_number_of_signatures_and_to_the_bytes() -> None:
    head = f"{TEXT}\n".encode()
    assert len(parse_note(head + LINE.encode() * 64).signatures) == 64
    with pytest.raises(NoteError):
        parse_note(head + LINE.encode() * 65)
    rest = f"\n{LINE}".encode()
    full = b"x" * (MAX_NOTE_BYTES - len(rest) - 1) + b"\n" + rest
    assert len(full) == MAX_NOTE_BYTES
    assert len(parse_note(full).signatures) == 1
    with pytest.raises(NoteError):
        parse_note(b"x" + full)


def test_signature_lines_are_added_to_a_note() -> None:
    alone = format_note(Note(text=TEXT, signatures=SIGNED.signatures[:1]))
    assert with_signatures(alone, [format_signature(s) for s in SIGNED.signatures[1:]]) == GOOD
    assert with_signatures(alone, []) == alone
    for line in ["", "\n", LINE[:-1], LINE + LINE, "\n" + LINE, LINE + "\n", "x" + LINE]:
        with pytest.raises(NoteError):
            with_signatures(alone, [line])
    with pytest.raises(NoteError):
        with_signatures(alone, [LINE] * 64)


def test_a_signature_line_is_read_back() -> None:
    for signature in SIGNED.signatures:
        assert parse_signature_line(format_signature(signature)) == signature


def test_a_signature_with_a_bad_key_id_is_not_written() -> None:
    for key_id in (b"", b"abc", b"abcde"):
        with pytest.raises(NoteError):
            format_note(forged("a", key_id, b""))


@pytest.mark.parametrize("text", ["QQ", "QQ=", "QR==", "Q Q=", "QQ==\n", "QQ==QQ==", "-_==", "É"])
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(NoteError):
        decode_base64(text)


@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), max_size=60),
    blobs=st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=5),
)
@BOUNDED
def test_what_is_written_is_read_back(text: str, blobs: list[bytes]) -> None:
    lines = tuple(NoteSignature(name="a.b/c", key_id=b"\x00abc", signature=blob) for blob in blobs)
    note = Note(text=text + "\n", signatures=lines)
    assert parse_note(format_note(note)) == note


PIECES = st.sampled_from(
    [b"\n", b"\n\n", b"\r", "— ".encode(), b" ", b"+", b"=", b"A", b"\x00", b"\xff", LINE.encode()]
)


@given(start=st.integers(0, len(GOOD)), cut=st.integers(0, 90), put=PIECES | st.binary(max_size=3))
@BOUNDED
def test_a_note_has_one_spelling_and_anything_else_is_a_note_error(
    start: int, cut: int, put: bytes
) -> None:
    data = GOOD[:start] + put + GOOD[start + cut :]
    try:
        note = parse_note(data)
    except NoteError:
        return
    assert format_note(note) == data
    try:
        verified(note, KEYS)
    except NoteError:
        return
    assert note.text == TEXT
