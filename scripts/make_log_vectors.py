"""Writes the vectors of sections 9 to 13; the same bytes every time, from fixed inputs.

Usage: `python -m scripts.make_log_vectors [DIRECTORY]`. Imports nothing of the application, so that
what it says is a second opinion. Each vector that holds has a twin with one thing wrong.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from scripts.bundle_vectors import bundles
from scripts.header_vectors import headers
from scripts.policy_vectors import origins, policies
from scripts.statement_vectors import certificates, entries, erasures, retirements, rotations
from scripts.vector_keys import KEYS, MOMENT, ORIGIN, WITNESSES
from scripts.vector_parts import (
    Json,
    JsonObject,
    b64,
    checkpoint_text,
    consistency,
    fixed,
    flipped,
    h,
    inclusion,
    lp,
    mth,
    spoiled,
    t,
    u64,
    vector,
)

DIRECTORY = Path(__file__).resolve().parents[1] / "tests" / "contract" / "vectors" / "log"
LOG_KEY = KEYS["log"]


def hexes(items: Iterable[bytes]) -> list[Json]:
    """Bytes as JSON shows them."""
    return [item.hex() for item in items]


def data(count: int) -> list[bytes]:
    """The entries of the trees here: entry i is u64be(i)."""
    return [u64(number) for number in range(count)]


def leaves() -> list[JsonObject]:
    """The entry of a record and its hash."""
    made: list[JsonObject] = []
    for seq in (0, 1, 255, 2**40):
        log, run, chain = (fixed(f"leaf {name} {seq}", n) for name, n in PLACE)
        entry = t("leaf") + lp(log) + lp(run) + u64(seq) + chain
        given: JsonObject = {"log": log.hex(), "run": run.hex(), "seq": seq, "chain": chain.hex()}
        out: JsonObject = {"leaf_data": entry.hex(), "leaf_hash": h(b"\0", entry).hex()}
        made.append(vector(f"seq {seq}", given, out))
        wrong = out | {"leaf_hash": flipped(h(b"\0", entry), seq % 251).hex()}
        made.append(vector(f"seq {seq}, one bit wrong", given, wrong, valid=False))
    node: JsonObject = {"leaf_data": entry.hex(), "leaf_hash": h(b"\1", entry).hex()}
    made.append(vector("hashed as a node", given, node, valid=False))
    return made


PLACE = (("log", 16), ("run", 16), ("chain", 32))


def roots() -> list[JsonObject]:
    """MTH, over the entries that RFC 6962 implementations publish their constants for."""
    published = [b"", b"\0", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43"]
    published += [bytes(range(0x50, 0x58)), bytes(range(0x60, 0x70))]
    made: list[JsonObject] = []
    for size in range(len(published) + 1):
        root = mth(published[:size])
        given: JsonObject = {"entries": hexes(published[:size])}
        made.append(vector(f"size {size}", given, {"root": root.hex()}))
        wrong = {"root": flipped(root, 31 * size).hex()}
        made.append(vector(f"size {size}, one bit wrong", given, wrong, valid=False))
    return made


def inclusions() -> list[JsonObject]:
    """Inclusion proofs, and what is nearly one."""
    made: list[JsonObject] = []
    places = ((0, 1), (0, 2), (1, 2), (2, 3), (3, 7), (6, 7), (5, 8), (255, 256), (256, 257))
    for index, size in (*places, (300, 1000)):
        tree = data(size)
        path, root = inclusion(index, tree), mth(tree)
        given: JsonObject = {
            "leaf_hash": h(b"\0", tree[index]).hex(),
            "index": index,
            "size": size,
            "root": root.hex(),
        }
        name = f"{index} of {size}"
        made.append(vector(name, given, {"proof": hexes(path)}))
        if path:
            bad = [*path[:-1], flipped(path[-1], index + 7)]
            made.append(vector(f"{name}, one bit wrong", given, {"proof": hexes(bad)}, valid=False))
        else:
            rooted = given | {"root": flipped(root, 9).hex()}
            made.append(vector(f"{name}, one bit wrong", rooted, {"proof": []}, valid=False))
        last = len(path) and path[-1][:31]
        near: dict[str, tuple[JsonObject, list[bytes]]] = {
            "a hash too many": ({}, [*path, bytes(32)]),
            "the index after it": ({"index": index + 1}, path),
        }
        if last:
            near["a short hash"] = ({}, [*path[:-1], last])
            near["a hash too few"] = ({}, path[:-1])
        made += [
            vector(f"{name}, {what}", given | more, {"proof": hexes(items)}, valid=False)
            for what, (more, items) in near.items()
            if size in {1, 7, 257}
        ]
    return made


def consistencies() -> list[JsonObject]:
    """Consistency proofs, and what is nearly one."""
    made: list[JsonObject] = []
    for old, size in ((0, 5), (1, 2), (3, 7), (4, 7), (6, 8), (7, 7), (8, 8), (100, 1000)):
        tree = data(size)
        path = consistency(old, tree) if old else []
        given: JsonObject = {
            "old_size": old,
            "size": size,
            "old_root": mth(tree[:old]).hex(),
            "root": mth(tree).hex(),
        }
        name = f"{old} to {size}"
        made.append(vector(name, given, {"proof": hexes(path)}))
        if path:
            bad = [flipped(path[0], old), *path[1:]]
            made.append(vector(f"{name}, one bit wrong", given, {"proof": hexes(bad)}, valid=False))
            made.append(vector(f"{name}, no proof", given, {"proof": []}, valid=False))
        rooted = given | {"old_root": flipped(mth(tree[:old]), 3).hex()}
        made.append(
            vector(f"{name}, another old root", rooted, {"proof": hexes(path)}, valid=False)
        )
        longer = {"proof": hexes([*path, bytes(32)])}
        made.append(vector(f"{name}, a hash too many", given, longer, valid=False))
    return made


def tiles() -> list[JsonObject]:
    """Tiles of height 8: full ones, partial ones, and one of the level above."""
    made: list[JsonObject] = []
    for size, level, number in ((5, 0, 0), (256, 0, 0), (300, 0, 1), (600, 1, 0), (256, 1, 0)):
        tree, span = data(size), 256**level
        starts = range(number * 256 * span, min((number + 1) * 256 * span, size), span)
        hashes = [mth(tree[at : at + span]) for at in starts if at + span <= size]
        tile = b"".join(hashes)
        given: JsonObject = {"size": size, "level": level, "n": number}
        out: JsonObject = {"width": len(hashes), "sha256": sha256(tile).hexdigest()}
        name = f"level {level}, tile {number} of {size}"
        made.append(vector(name, given, out))
        bad = sha256(flipped(tile, 77)).hexdigest()
        made.append(vector(f"{name}, one bit wrong", given, out | {"sha256": bad}, valid=False))
    return made


def notes() -> list[JsonObject]:
    """Signed notes: what is one, whose lines count, and what no note may hold."""
    text, name = "first line\n\nafter an empty line\n", "notes.example/a"
    own, other = KEYS["log"], KEYS["new log"]
    line = own.line(name, text)
    whole = f"{text}\n{line}"
    bad = f"{text}\n{spoiled(line)}"
    stranger = other.line(name, text)
    given: JsonObject = {"vkeys": [own.vkey(name)]}
    both: JsonObject = {"vkeys": [own.vkey(name), other.vkey(name)]}
    good: dict[str, tuple[JsonObject, str, list[str]]] = {
        "one signature": (given, whole, [name]),
        "a line of an unknown key beside it": (given, whole + stranger, [name]),
        "an unknown key's line that does not hold": (given, whole + spoiled(stranger), [name]),
        "two known keys": (both, whole + stranger, [name, name]),
    }
    wrong: dict[str, tuple[JsonObject, str]] = {
        "one bit of the signature wrong": (given, bad),
        "one bit of the text wrong": (given, whole.replace("first", "farst")),
        "a known key's line that does not hold beside one that does": (
            both,
            whole + spoiled(stranger),
        ),
        "no known key": ({"vkeys": [other.vkey(name)]}, whole),
        "a carriage return": (given, whole.replace("line\n", "line\r\n", 1)),
        "a tab": (given, whole.replace("first line", "first\tline")),
        "no empty line": (given, text.replace("\n\n", "\n") + line),
        "no newline at the end": (given, whole[:-1]),
        "an empty line at the end": (given, whole + "\n"),
        "a hyphen for the dash": (given, whole.replace("— ", "- ")),
        "the name of another": (given, whole.replace(f"— {name}", "— notes.example/b")),
        "base64 without padding": (given, whole.replace("=\n", "\n")),
        "a tab, well signed": (given, signed_note(text.replace(" ", "\t"), name)),
        "a carriage return, well signed": (given, signed_note(text.replace("\n", "\r\n"), name)),
        "no text, well signed": (given, f"\n\n{own.line(name, '')}"),
        "a hyphen in a second line": (given, whole + stranger.replace("— ", "- ")),
        "a name with a plus in a second line": (given, whole + other.line("a+b", text)),
        "a name with a space in a second line": (given, whole + other.line("a\u00a0b", text)),
        "no base64 in a second line": (given, f"{whole}— {name} ****\n"),
        "no signature in a second line": (given, f"{whole}— {name} AAAAAA==\n"),
        "no signature in the line": (given, f"{text}\n— {name} {b64(own.key_id(name, 1))}\n"),
    }
    made = [
        vector(what, keys, {"note": note, "signed_by": list[Json](names)})
        for what, (keys, note, names) in good.items()
    ]
    return made + [
        vector(what, keys, {"note": note, "signed_by": [name]}, valid=False)
        for what, (keys, note) in wrong.items()
    ]


def signed_note(text: str, name: str) -> str:
    """A note by the log key, whatever its text."""
    return f"{text}\n{LOG_KEY.line(name, text)}"


def checkpoints() -> list[JsonObject]:
    """Checkpoints of a ledger, and notes that are none."""
    root = mth(data(6))
    made: list[JsonObject] = []

    def signed(text: str, name: str) -> str:
        return f"{text}\n{LOG_KEY.line(name, text)}"

    for origin, size in ((ORIGIN, 6), (f"{ORIGIN}/r3", 6), (ORIGIN, 2**40)):
        note = signed(checkpoint_text(origin, size, root), origin)
        given: JsonObject = {"vkeys": [LOG_KEY.vkey(origin)]}
        out: JsonObject = {"note": note, "origin": origin, "size": size, "root": root.hex()}
        name = f"{origin.rpartition('/')[2][:4]}, size {size}"
        made.append(vector(name, given, out))
        head, _, line = note.partition("\n\n")
        out = out | {"note": f"{head}\n\n{spoiled(line)}"}
        made.append(vector(f"{name}, one bit wrong", given, out, valid=False))
    given = {"vkeys": [LOG_KEY.vkey(ORIGIN)]}
    encoded = b64(root)
    texts = {
        "an extension line": f"{ORIGIN}\n6\n{encoded}\nmore\n",
        "a zero in front": f"{ORIGIN}\n06\n{encoded}\n",
        "a sign": f"{ORIGIN}\n+6\n{encoded}\n",
        "a size of twenty digits": f"{ORIGIN}\n{10**19}\n{encoded}\n",
        "a short root": f"{ORIGIN}\n6\n{b64(root[:31])}\n",
        "no root": f"{ORIGIN}\n6\n",
        "an empty line between": f"{ORIGIN}\n\n6\n{encoded}\n",
    }
    for what, text in texts.items():
        out = {"note": signed(text, ORIGIN), "origin": ORIGIN, "size": 6, "root": root.hex()}
        out |= {"root": root[:31].hex()} if "short" in what else {}
        out |= {"size": 10**19} if "twenty" in what else {}
        made.append(vector(what, given, out, valid=False))
    empty = signed(checkpoint_text(ORIGIN, 0, mth([])), ORIGIN)
    for what, note, top in (
        ("an empty tree", empty, mth([])),
        ("an empty tree with a root", signed(checkpoint_text(ORIGIN, 0, root), ORIGIN), root),
    ):
        out = {"note": note, "origin": ORIGIN, "size": 0, "root": top.hex()}
        made.append(vector(what, given, out, valid=top != root))
    return made


def cosignatures() -> list[JsonObject]:
    """Cosignatures of type 0x04 on a checkpoint."""
    text = checkpoint_text(ORIGIN, 6, mth(data(6)))
    made: list[JsonObject] = []
    for moment, (name, key) in zip((MOMENT, 1, 2**40), WITNESSES.items(), strict=True):
        line = key.cosignature(name, text, moment)
        given: JsonObject = {"vkeys": [key.vkey(name, 4)]}
        out: JsonObject = {"note": f"{text}\n{line}", "cosigned_at": moment}
        made.append(vector(f"{name} at {moment}", given, out))
        wrong = out | {"note": f"{text}\n{spoiled(line)}"}
        made.append(vector(f"{name} at {moment}, one bit wrong", given, wrong, valid=False))
    (name, key), other = next(iter(WITNESSES.items())), LOG_KEY
    given = {"vkeys": [key.vkey(name, 4)]}
    good = key.cosignature(name, text, MOMENT)
    plain = f"— {name} {b64(key.key_id(name, 4) + u64(MOMENT) + key.sign(text.encode()))}\n"
    later = key.sign(f"cosignature/v1\ntime {MOMENT}\n{text}".encode())
    moved = f"— {name} {b64(key.key_id(name, 4) + u64(MOMENT + 1) + later)}\n"
    wrongs = {
        "a signature over the text alone": plain,
        "a time that is not the one signed": moved,
        "an unknown witness": other.cosignature("w9.example", text, MOMENT),
        "a line of type 0x01": key.line(name, text),
        "cosigned another checkpoint": key.cosignature(name, text.replace("6", "7"), MOMENT),
        "the key under another name": good.replace(name, "w8.example"),
    }
    for what, line in wrongs.items():
        out = {"note": f"{text}\n{line}", "cosigned_at": MOMENT}
        made.append(vector(what, given, out, valid=False))
    return made


def proofs() -> list[JsonObject]:
    """Proofs in the form of tlog-proof."""
    made: list[JsonObject] = []
    for index, size in ((0, 1), (2, 5), (7, 9)):
        tree = data(size)
        text = checkpoint_text(ORIGIN, size, mth(tree))
        note = f"{text}\n{LOG_KEY.line(ORIGIN, text)}"
        path = "".join(f"{b64(item)}\n" for item in inclusion(index, tree))
        head = "c2sp.org/tlog-proof@v1\n"
        whole = f"{head}index {index}\n{path}\n{note}"
        extra = f"{head}extra {b64(b'more')}\nindex {index}\n{path}\n{note}"
        entry = tree[index]
        given: JsonObject = {"entry": entry.hex(), "vkeys": [LOG_KEY.vkey(ORIGIN)]}
        name = f"{index} of {size}"
        made.append(vector(name, given, {"proof": whole}))
        made.append(vector(f"{name}, with extra data", given, {"proof": extra}))
        another = given | {"entry": flipped(entry, 5).hex()}
        wrongs = {
            "one bit of the entry wrong": (another, whole),
            "another index": (given, whole.replace(f"index {index}", f"index {index + 1}")),
            "a zero before the index": (given, whole.replace("index ", "index 0")),
            "another version": (given, whole.replace("@v1", "@v2")),
            "no index": (given, whole.replace(f"index {index}\n", "")),
        }
        made += [
            vector(f"{name}, {what}", keys, {"proof": proof}, valid=False)
            for what, (keys, proof) in wrongs.items()
        ]
    return made


FILES: Mapping[str, Callable[[], list[JsonObject]]] = {
    "leaf": leaves,
    "header": headers,
    "root": roots,
    "inclusion": inclusions,
    "consistency": consistencies,
    "tile": tiles,
    "note": notes,
    "checkpoint": checkpoints,
    "cosignature": cosignatures,
    "origin": origins,
    "proof": proofs,
    "policy": policies,
    "certificate": certificates,
    "rotation": rotations,
    "retirement": retirements,
    "erasure": erasures,
    "entry": entries,
    "bundle": bundles,
}


def main(directory: Path) -> int:
    """Write every file."""
    directory.mkdir(exist_ok=True)
    for name, make in FILES.items():
        shown: JsonObject = {"format": "ledger/v1", "vectors": list[Json](make())}
        text = json.dumps(shown, ensure_ascii=True, indent=1, sort_keys=True) + "\n"
        (directory / f"{name}.json").write_text(text, encoding="ascii")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    sys.exit(main(parser.parse_args().directory))
