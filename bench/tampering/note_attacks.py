"""Attacks on signed notes, made at the witness's door, where a log's word is taken or not.

Size and root are those that the witness has cosigned, so nothing but the signature or the form of
the note can be the reason to refuse.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from random import Random  # noqa: TID251 - seeded

import httpx2

from bench.tampering.attack import Outcome, Told, Trial
from bench.tampering.log_forging import note_of
from bench.tampering.witnessed import Deployment
from tests.support.small_log import NoteKey, SmallLog, body_of, key_id, root_of
from tests.support.witness_process import WitnessProcess

_TREE = frozenset({"D4"})  # a proof is what the tree says, whoever checks it
Forge = Callable[["Word", Random], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A checkpoint that the witness has cosigned, and the key of its log."""

    origin: str
    size: int
    root: bytes
    seed: bytes

    @property
    def text(self) -> bytes:
        """The three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()

    def signed(self, text: bytes) -> bytes:
        """The text as a note with the log's real signature."""
        return text + b"\n" + NoteKey(self.origin, seed=self.seed).line(text)


def unknown_key(word: Word, rng: Random) -> bytes:
    """Signed by a key nobody knows, under the log's name."""
    return word.text + b"\n" + NoteKey(word.origin, seed=rng.randbytes(32)).line(word.text)


def colliding_id(word: Word, rng: Random) -> bytes:
    """As `unknown_key`, with the key id of the real key."""
    other = NoteKey(word.origin, seed=rng.randbytes(32))
    real = NoteKey(word.origin, seed=word.seed)
    line = other.line(word.text)
    name, _, encoded = line.rstrip(b"\n").rpartition(b" ")
    signature = base64.b64decode(encoded)[4:]
    forged = key_id(word.origin, 1, real.public) + signature
    return word.text + b"\n" + name + b" " + base64.b64encode(forged) + b"\n"


def real_key_of_another_kind(word: Word, _rng: Random) -> bytes:
    """The real key's signature as if it were a witness's."""
    key = NoteKey(word.origin, seed=word.seed, kind=4)
    return word.text + b"\n" + key.line(word.text)


def with_cr(word: Word, rng: Random) -> bytes:
    """Line ends of another world, signed so or changed afterwards."""
    text = word.text.replace(b"\n", b"\r\n")
    return (
        word.signed(text) if rng.random() < 0.5 else word.signed(word.text).replace(b"\n", b"\r\n")
    )


def with_control(word: Word, rng: Random) -> bytes:
    """A control character in an extension line or in the origin, under a real signature."""
    control = bytes([rng.choice([*range(1, 10), *range(11, 32), 127])])
    if rng.random() < 0.5:
        return word.signed(word.text + b"x" + control + b"\n")
    return word.signed(word.text.replace(b"/ledger", control + b"/ledger"))


def with_blank_line(word: Word, rng: Random) -> bytes:
    """A second blank line: two readers may see two texts."""
    note = word.signed(word.text)
    place = rng.choice([place for place in range(len(note)) if note[place : place + 1] == b"\n"])
    return note[:place] + b"\n" + note[place:]


def with_injected_origin(word: Word, rng: Random) -> bytes:
    """Another log's name, alone or in front of the real one."""
    other = f"evil.example/ledger/{rng.randbytes(16).hex()}".encode()
    text = rng.choice((word.text.replace(word.origin.encode(), other), other + b"\n" + word.text))
    return word.signed(text)


def with_late_extension(word: Word, rng: Random) -> bytes:
    """An extension line put in after the signature was made."""
    note = word.signed(word.text)
    return note.replace(word.text, word.text + rng.randbytes(4).hex().encode() + b"\n", 1)


def with_other_number(word: Word, rng: Random) -> bytes:
    """The size in another spelling, under a real signature."""
    size = rng.choice((f"0{word.size}", f"+{word.size}", f" {word.size}", f"{word.size}.0", "-1"))
    lines = word.text.split(b"\n")
    return word.signed(b"\n".join([lines[0], size.encode(), *lines[2:]]))


def with_other_base64(word: Word, rng: Random) -> bytes:
    """The root in another spelling, or of another length, under a real signature."""
    encoded = base64.b64encode(word.root)
    spelling = rng.choice(
        (
            encoded.rstrip(b"="),
            encoded + b"=",
            base64.b64encode(word.root + b"\0"),
            base64.b64encode(word.root[:-1]),
            base64.urlsafe_b64encode(b"\xff" * 32),
            encoded[:8] + b" " + encoded[8:],
        )
    )
    lines = word.text.split(b"\n")
    return word.signed(b"\n".join([lines[0], lines[1], spelling, *lines[3:]]))


def flipped_signature(word: Word, rng: Random) -> bytes:
    """One bit of the real signature."""
    note = word.signed(word.text)
    head, _, encoded = note.rstrip(b"\n").rpartition(b" ")
    raw = bytearray(base64.b64decode(encoded))
    raw[rng.randrange(4, len(raw))] ^= 1 << rng.randrange(8)
    return head + b" " + base64.b64encode(bytes(raw)) + b"\n"


def second_tree(word: Word, rng: Random) -> bytes:
    """Another root at the same size, signed with the log key: a split view."""
    root = sha256(rng.randbytes(16)).digest()
    return note_of(word.origin, word.size, root, word.seed).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteClass:
    """A class of the table that is about notes; `kept`: the witness keeps the note as evidence."""

    number: int
    title: str
    who: str
    named: str
    acts: tuple[tuple[str, Forge], ...]
    kept: bool = False


CLASSES = (
    NoteClass(
        number=27,
        title="split view: two trees for two readers",
        who="A4",
        named="D6",
        acts=(("same size", second_tree),),
        kept=True,
    ),
    NoteClass(
        number=29,
        title="checkpoint by an unknown key of the same name, or with a colliding key id",
        who="A2",
        named="D5",
        acts=(
            ("unknown key", unknown_key),
            ("colliding id", colliding_id),
            ("another kind", real_key_of_another_kind),
            ("flipped signature", flipped_signature),
        ),
    ),
    NoteClass(
        number=35,
        title="notes: CR, control characters, blank line, origin injection, extension line",
        who="A2",
        named="D5",
        acts=(
            ("CR", with_cr),
            ("control character", with_control),
            ("blank line", with_blank_line),
            ("origin", with_injected_origin),
            ("extension line", with_late_extension),
            ("number", with_other_number),
            ("base64", with_other_base64),
        ),
    ),
)


PROOFS = 34
_OWN = NoteKey("proofs.example/ledger/small", seed=b"\7" * 32)


def small_log() -> SmallLog:
    """A log of the bench's own: its notes are good, and only its proofs are not."""
    return SmallLog(_OWN)


def _wrong_proof(log: SmallLog, old: int, size: int, rng: Random) -> bytes:
    """A good note of a log that grew, with a proof that does not say so."""
    proof = log.proof(old, size)
    place = rng.randrange(len(proof))
    leaf = log.leaves(size)[rng.randrange(old, size)]
    wrong = rng.choice(
        (
            [*proof[:place], *proof[place + 1 :]],
            [*proof[:place], proof[place][:-1], *proof[place + 1 :]],
            [*proof[:place], proof[place][:16], *proof[place + 1 :]],
            [*proof, rng.randbytes(32)],
            [*proof[:place], sha256(leaf).digest(), *proof[place + 1 :]],  # no leaf prefix
            [*proof[:place], root_of([b"\1" + proof[place]]), *proof[place + 1 :]],
            proof[::-1] if proof != proof[::-1] else [],
            log.proof(old - 1, size),
            log.proof(old, size + 1),
        )
    )
    return body_of(old, wrong if wrong != proof else [], log.note(size))


async def proof_trials(witness: WitnessProcess, rng: Random, count: int) -> list[Trial]:
    """Class 34 at the witness's door: each wrong proof is refused, and the right one is not."""
    log, found, old = small_log(), [], 5
    async with httpx2.AsyncClient(base_url=witness.url, timeout=30, trust_env=False) as http:
        assert (await http.post("/add-checkpoint", content=log.body(0, old))).status_code == 200
        for _ in range(count):
            size = old + rng.randrange(1, 9)
            while old & (old - 1) == 0:  # a whole tree: the proof may be empty
                assert (
                    await http.post("/add-checkpoint", content=log.body(old, old + 1))
                ).status_code == 200
                old += 1
            size = max(size, old + 1)
            answer = await http.post("/add-checkpoint", content=_wrong_proof(log, old, size, rng))
            told: tuple[Told, ...] = ()
            if answer.status_code != 200:
                told = (Told(detector="D6", reason=f"HTTP {answer.status_code}"),)
            right = await http.post("/add-checkpoint", content=log.body(old, size))
            assert right.status_code == 200, right.text
            old = size
            outcome = Outcome.DETECTED if told else Outcome.UNDETECTED
            found.append(
                Trial(number=PROOFS, act="consistency", outcome=outcome, told=told, layers=_TREE)
            )
    return found


async def note_trial(
    deployment: Deployment, witness: WitnessProcess, word: Word, one: NoteClass, act: str, do: Forge
) -> Trial:
    """Show one forged note; it has to be refused, and the witness's memory has to stay."""
    note = do(word, deployment.rng)
    async with httpx2.AsyncClient(base_url=witness.url, timeout=30, trust_env=False) as http:
        before = (await http.get("/checkpoint", params={"origin": word.origin})).content
        answer = await http.post("/add-checkpoint", content=body_of(word.size, (), note))
        after = (await http.get("/checkpoint", params={"origin": word.origin})).content
    told: tuple[Told, ...] = ()
    same = before.splitlines()[:3] == after.splitlines()[:3]
    if answer.status_code != 200 and same:
        told = (Told(detector=one.named, reason=f"HTTP {answer.status_code}"),)
    if told and one.kept:
        found = witness.files.run("witness", "evidence", "--state", str(witness.files.state))
        told = told if note.splitlines()[2].decode() in found.out else ()
    outcome = Outcome.DETECTED if told else Outcome.UNDETECTED
    layers = frozenset(said.detector for said in told)
    return Trial(
        number=one.number, act=act, outcome=outcome, told=told, where=note.hex(), layers=layers
    )
