"""The keys, ids and origins of the vectors, and what those keys sign."""

from collections.abc import Mapping, Sequence

from scripts.vector_parts import Json, JsonObject, Key, Made, canonical, fixed, t

DEPLOYMENT = "vectors.example/mesh"
TENANT, OPERATOR = fixed("tenant log", 16), fixed("operator log", 16)
RUN, OTHER, THIRD = (fixed(f"run {n}", 16) for n in range(3))
TENANT_ADMIN, OPERATOR_ADMIN = fixed("tenant admin", 16), fixed("operator admin", 16)
ORIGIN = f"{DEPLOYMENT}/ledger/{TENANT.hex()}"
OPERATOR_ORIGIN = f"{DEPLOYMENT}/ledger/{OPERATOR.hex()}"
KEYS = {
    name: Key(name)
    for role in ("log", "enrolment", "erasure")
    for name in (role, f"new {role}", f"strange {role}")
}
WRITERS = {fixed(f"writer id {n}", 16): Key(f"writer {n}") for n in range(2)}
FIRST, SECOND = WRITERS
WITNESSES = {f"w{n}.example": Key(f"witness {n}") for n in range(3)}
MOMENT = 1_785_600_000


def policy_text(
    *,
    log: str = "log",
    enrolment: str | None = "enrolment",
    erasure: str | None = "erasure",
    quorum: str = "two",
    origin: str = OPERATOR_ORIGIN,
) -> str:
    """A policy that pins these keys: two of three witnesses."""
    lines = ["# what the readers of the vectors trust", f"log {KEYS[log].vkey(origin)}", ""]
    lines += [f"witness {n[:2]} {key.vkey(n, 4)}" for n, key in WITNESSES.items()]
    lines += ["group two 2 w0 w1 w2", f"quorum {quorum}"]
    for role, name in (("enrolment", enrolment), ("erasure", erasure)):
        if name is not None:
            vkey = KEYS[name].vkey(f"{DEPLOYMENT}/{role}")
            lines.append(f"#meshflow/v1 {role} {vkey}")
    return "\n".join(lines) + "\n"


def rotation(
    role: str, sizes: Mapping[str, int], told: str | None = None, new: str | None = None
) -> JsonObject:
    """The note of a key.rotated record."""
    old, after = KEYS[role], KEYS[new or f"new {role}"]
    signed: JsonObject = {
        "role": told or role,
        "old": old.public.hex(),
        "new": after.public.hex(),
        "sizes": dict(sizes),
    }
    message = t("rotate") + canonical(signed)
    signatures = {"old_signature": old.sign(message), "new_signature": after.sign(message)}
    return signed | {name: value.hex() for name, value in signatures.items()}


def certificate(writer: bytes, by: str = "enrolment") -> bytes:
    """Section 11."""
    return KEYS[by].sign(t("writer") + writer + WRITERS[writer].public)


def statement_note(said: Mapping[str, Json], key: str = "erasure") -> JsonObject:
    """The note of an erasure record."""
    text = canonical(dict(said))
    signature = KEYS[key].sign(t("erasure") + text)
    return {
        "statement": text.decode(),
        "signature": signature.hex(),
        "key": KEYS[key].public.hex(),
    }


def statement(
    action: str, records: Sequence[Made], gone: Mapping[int, list[str]], checkpoint: str | None
) -> JsonObject:
    """A statement about the run of the vectors."""
    of_run = action != "delete_tenant"
    items: list[Json] = [
        {
            "seq": made.seq,
            "rc": made.rc.hex(),
            "chain": made.chain.hex(),
            "fields": list[Json](gone.get(made.seq, [])),
        }
        for made in records
    ]
    return {
        "v": 1,
        "action": action,
        "log": TENANT.hex(),
        "run": RUN.hex() if of_run else None,
        "at": "2026-08-02T00:00:00.000000Z",
        "actor": "operator",
        "legal_basis": "gdpr.art17",
        "request_ref": fixed("request reference", 32).hex(),
        "items": items if of_run else None,
        "checkpoint": checkpoint,
    }
