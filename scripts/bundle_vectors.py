"""Vectors of whole bundles: some hold, some lack something, and many were changed by somebody.

A bundle is given as its members, or as what differs from the members of another vector.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from scripts import forged_bundles
from scripts.hostile_tars import hostile_tars
from scripts.vector_bundles import NAMES, Members, Plan, bundle, tar_of, with_manifest
from scripts.vector_keys import (
    KEYS,
    MOMENT,
    OPERATOR_ORIGIN,
    SECOND,
    certificate,
    policy_text,
)
from scripts.vector_parts import (
    Json,
    JsonObject,
    b64,
    canonical,
    edited,
    fixed,
    flipped,
    h,
    kept,
    lines,
    lp,
    rows,
    spoiled,
    t,
    vector,
)

HOLDS, LACKING, BROKEN, UNUSABLE = 0, 2, 3, 4
Change = Callable[[Members], Members]
ROTATED = Plan(
    rotated=("log", "enrolment", "erasure"),
    second_certificate="new enrolment",
    tenant_log_key="new log",
    operator_log_key="new log",
    erase="anonymize_run",
    erased_by="new erasure",
)
NEW_PINS = policy_text(log="new log", enrolment="new enrolment", erasure="new erasure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A plan, the policy it is judged by, and what comes out."""

    plan: Plan
    policy: str | None = None
    code: int = HOLDS
    now: int | None = None
    max_age: int | None = None


BASES: Mapping[str, Base] = {
    "plain": Base(plan=Plan(), policy=policy_text()),
    "shared batch": Base(plan=Plan(shared=True), policy=policy_text()),
    "anonymized": Base(plan=Plan(erase="anonymize_run"), policy=policy_text()),
    "deleted": Base(plan=Plan(erase="delete_run", shared=True), policy=policy_text()),
    "anonymized, then deleted": Base(
        plan=Plan(erase="anonymize_run delete_run"), policy=policy_text()
    ),
    "rotated, old pins": Base(plan=ROTATED, policy=policy_text()),
    "rotated, new pins": Base(plan=ROTATED, policy=NEW_PINS),
    "old checkpoint under a new key": Base(
        plan=Plan(rotated=("log",), rotated_at=6, tenant_log_key="log", operator_log_key="new log"),
        policy=policy_text(log="new log"),
    ),
    "retired writer": Base(plan=Plan(retired_at=3), policy=policy_text()),
    "recovered": Base(
        plan=Plan(recovery="/r2"), policy=policy_text(origin=f"{OPERATOR_ORIGIN}/r2")
    ),
    "before a recovery that is pinned": Base(
        plan=Plan(),
        policy=policy_text(origin=f"{OPERATOR_ORIGIN}/r1")
        + f"#meshflow/v1 log {KEYS['log'].vkey(OPERATOR_ORIGIN)}\n",
    ),
    "fresh enough": Base(plan=Plan(), policy=policy_text(), now=MOMENT + 61, max_age=60),
}
LACKING_BASES: Mapping[str, Base] = {
    "no policy": Base(plan=Plan(), code=LACKING),
    "deleted, no policy": Base(plan=Plan(erase="delete_run"), code=LACKING),
    "tail not sequenced": Base(plan=Plan(sequenced=3), policy=policy_text(), code=LACKING),
    "no checkpoint": Base(plan=Plan(checkpointed=False), policy=policy_text(), code=LACKING),
    "no anchor": Base(plan=Plan(anchored=False), policy=policy_text(), code=LACKING),
    "one witness of two": Base(
        plan=Plan(cosigned_by=("w1.example",)), policy=policy_text(), code=LACKING
    ),
    "no witness is asked for": Base(plan=Plan(), policy=policy_text(quorum="none"), code=LACKING),
    "no enrolment key pinned": Base(plan=Plan(), policy=policy_text(enrolment=None), code=LACKING),
    "no erasure key pinned": Base(
        plan=Plan(erase="anonymize_run"), policy=policy_text(erasure=None), code=LACKING
    ),
    "not fresh": Base(plan=Plan(), policy=policy_text(), now=MOMENT + 62, max_age=60, code=LACKING),
    "cosigned in the future": Base(plan=Plan(), policy=policy_text(), now=MOMENT, code=LACKING),
}
REFUSED_BASES: Mapping[str, Base] = {
    "another log key pinned": Base(plan=Plan(), policy=policy_text(log="new log"), code=BROKEN),
    "another enrolment key pinned": Base(
        plan=Plan(), policy=policy_text(enrolment="strange enrolment"), code=BROKEN
    ),
    "another erasure key pinned": Base(
        plan=Plan(erase="anonymize_run"),
        policy=policy_text(erasure="strange erasure"),
        code=BROKEN,
    ),
    "another operator log pinned": Base(
        plan=Plan(), policy=policy_text(origin=f"{OPERATOR_ORIGIN}/r1"), code=BROKEN
    ),
    "a policy that is none": Base(plan=Plan(), policy="quorum\n", code=UNUSABLE),
    "a retired writer went on": Base(plan=Plan(retired_at=2), policy=policy_text(), code=BROKEN),
    "a retired writer went on after the checkpoint": Base(
        plan=Plan(retired_at=3, retires=SECOND, sequenced=2), policy=policy_text(), code=BROKEN
    ),
    "a rotated log key went on": Base(
        plan=Plan(rotated=("log",), rotated_at=5, tenant_log_key="log", operator_log_key="new log"),
        policy=policy_text(log="new log"),
        code=BROKEN,
    ),
    "a log key before its time": Base(
        plan=Plan(
            rotated=("log",), rotated_at=6, tenant_log_key="new log", operator_log_key="new log"
        ),
        policy=policy_text(),
        code=BROKEN,
    ),
    "a rotated enrolment key went on": Base(
        plan=replace(ROTATED, second_certificate="enrolment"), policy=NEW_PINS, code=BROKEN
    ),
    "a rotated erasure key went on": Base(
        plan=replace(ROTATED, erased_by="erasure"), policy=NEW_PINS, code=BROKEN
    ),
}


def in_line(name: str, at: int, **members: Json) -> Change:
    """Other members in one line of a file."""
    return lambda m: m | {name: edited(m[name], at, **members)}


def turned(name: str, at: int, member: str, bit: int = 21) -> Change:
    """One bit of a member the other way; hex stays hex, base64 stays base64."""

    def change(m: Members) -> Members:
        text = str(rows(m[name])[at][member])
        if member in {
            "rc",
            "chain",
            "tip",
            "batch_id",
            "writer_id",
            "previous",
        }:
            new = flipped(bytes.fromhex(text), bit).hex()
        else:
            new = b64(flipped(base64.b64decode(text), bit))
        return m | {name: edited(m[name], at, **{member: new})}

    return change


def without(name: str, at: int) -> Change:
    """A file that lacks a line."""
    return lambda m: m | {name: b"".join(x for i, x in enumerate(kept(m[name])) if i != at)}


def twice(name: str, at: int) -> Change:
    """A file with a line twice."""
    return lambda m: m | {name: b"".join(x * (1 + (i == at)) for i, x in enumerate(kept(m[name])))}


def text_of(name: str, old: str, new: str) -> Change:
    """A file with other words."""
    return lambda m: m | {name: m[name].replace(old.encode(), new.encode(), 1)}


def last_line_spoiled(name: str) -> Change:
    """A note with one bit of its last signature wrong."""

    def change(m: Members) -> Members:
        *before, last = kept(m[name])
        return m | {name: b"".join(before) + spoiled(last.decode()).encode()}

    return change


def rewritten(m: Members) -> Members:
    """Another nonce in a header, and every hash of the chain that follows made to fit."""
    changed = rows(m["records.jsonl"])
    head = h(t("genesis"), lp(bytes.fromhex(log_of(m))), lp(bytes.fromhex(run_of(m))))
    for seq, row in enumerate(changed):
        header = base64.b64decode(str(row["header"]))
        if seq == 1:
            members = json.loads(header) | {"nonce": fixed("forged", 16).hex()}
            header = canonical(members)
        rc = h(t("record"), lp(header))
        head = h(t("chain"), head, seq.to_bytes(8, "big"), rc)
        row |= {"header": b64(header), "rc": rc.hex(), "chain": head.hex()}
    return m | {"records.jsonl": lines(changed)}


def log_of(m: Members) -> str:
    """The log that the manifest names."""
    return str(json.loads(m["manifest.json"])["log"])


def run_of(m: Members) -> str:
    """The run that the manifest names."""
    return str(json.loads(m["manifest.json"])["run"])


def cut(m: Members) -> Members:
    """Without the last batch and all that belongs to it."""
    return m | {
        "records.jsonl": b"".join(kept(m["records.jsonl"])[:2]),
        "payloads.jsonl": b"".join(
            lines([row]) for row in rows(m["payloads.jsonl"]) if row["seq"] in {0, 1}
        ),
        "batches.jsonl": kept(m["batches.jsonl"])[0],
        "writers.jsonl": kept(m["writers.jsonl"])[0],
    }


def own_keys(m: Members) -> Members:
    """A writer's certificate by a key that only the forger has."""
    forged = b64(certificate(SECOND, "strange enrolment"))
    return in_line("writers.jsonl", 1, certificate=forged)(m)


R, P, B, W, A = (NAMES[n] for n in (1, 2, 3, 4, 8))
CHANGES: Mapping[str, Mapping[str, Change]] = {
    "plain": {
        "a value": turned(P, 0, "value"),
        "a salt": turned(P, 1, "salt"),
        "a field is gone": without(P, 2),
        "a field twice": twice(P, 0),
        "a field under another number": in_line(P, 0, field=3),
        "a field of another record": in_line(P, 1, seq=0),
        "a header": turned(R, 1, "header", 700),
        "a record hash": turned(R, 1, "rc"),
        "a chain hash": turned(R, 2, "chain"),
        "a time": in_line(R, 1, ts="2026-08-01T11:00:01.000000Z"),
        "a kind": in_line(R, 1, kind="tool.allowed"),
        "an epoch": in_line(R, 1, epoch=2),
        "a header rewritten and hashed anew": rewritten,
        "a header blanked": in_line(R, 1, header=None, kind=None, ts=None, epoch=None),
        "a record in the middle is gone": without(R, 2),
        "the last record is gone": without(R, 4),
        "a record twice": twice(R, 3),
        "no record at all": lambda m: m | {R: b"", P: b"", B: b"", W: b""},
        "an index": in_line(R, 2, index=4),
        "an index without a proof": in_line(R, 2, proof=None),
        "a place in the middle is denied": in_line(R, 2, index=None, proof=None),
        "a batch's signature": turned(B, 0, "sig"),
        "a batch's tip": turned(B, 1, "tip"),
        "a batch's count": in_line(B, 0, n=3),
        "a batch's ranges": turned(B, 0, "ranges", 255),
        "a batch is gone": without(B, 1),
        "a batch of another writer": in_line(B, 0, writer_id=SECOND.hex()),
        "a writer's key": turned(W, 0, "public_key"),
        "a writer's certificate": turned(W, 1, "certificate"),
        "a writer without a certificate": in_line(W, 0, certificate=None),
        "a certificate by a key the bundle brings": own_keys,
        "a writer is gone": without(W, 0),
        "the checkpoint's size": text_of("checkpoint.note", "\n6\n", "\n7\n"),
        "the checkpoint's log": text_of("checkpoint.note", "/ledger/", "/ledger/0"),
        "the operator's size": text_of("operator.note", "\n2\n", "\n3\n"),
        "a cosignature": last_line_spoiled("operator.note"),
        "the checkpoint's signature": last_line_spoiled("checkpoint.note"),
        "the anchor's value": turned("anchor.json", 0, "value"),
        "the anchor's previous": turned("anchor.json", 0, "previous"),
        "the anchor without the operator's checkpoint": lambda m: m | {"operator.note": b""},
        "a row too many in administration": lambda m: m | {A: m["anchor.json"]},
    },
    "shared batch": {
        "a path in a batch": lambda m: m | {B: m[B].replace(b'"index":3', b'"index":4', 1)},
        "no paths in a batch": in_line(B, 0, entries=None),
    },
    "anonymized": {
        "the erasure record is gone": without(A, 0),
        "one field more is gone": without(P, 1),
        "a field is back": lambda m: m | {P: bundle(Plan())[P]},
        "the statement's value": turned(A, 0, "value", 90),
        "the erasure record's index": in_line(A, 0, index=5),
    },
    "deleted": {
        "the erasure record is gone": without(A, 0),
        "a header is back": lambda m: (
            m | {R: m[R].replace(kept(m[R])[1], kept(bundle(Plan(shared=True))[R])[1])}
        ),
        "a field is back": lambda m: m | {P: kept(bundle(Plan())[P])[0]},
        "a record hash": turned(R, 1, "rc"),
        "a kind was left": in_line(R, 1, kind="tool.decided"),
    },
    "rotated, old pins": {
        "a rotation is gone": without(A, 0),
        "the rotation of the enrolment key is gone": without(A, 1),
        "the rotation of the erasure key is gone": without(A, 2),
        "a rotation twice": twice(A, 0),
    },
    "rotated, new pins": {"a rotation is gone": without(A, 1)},
    "old checkpoint under a new key": {"the rotation is gone": without(A, 0)},
    "tail not sequenced": {"a header in the tail": turned(R, 4, "header", 700)},
    "no policy": {"a chain hash": turned(R, 2, "chain")},
}


def bundles() -> list[JsonObject]:
    """Every bundle."""
    made: list[JsonObject] = []
    held: dict[str, tuple[Base, Members]] = {}
    forged = {
        name: Base(plan=plan, policy=_pinning(plan), code=BROKEN)
        for name, plan in forged_bundles.PLANS.items()
    }
    for name, base in {**BASES, **LACKING_BASES, **REFUSED_BASES, **forged}.items():
        members = bundle(base.plan)
        held[name] = base, members
        made.append(_vector(name, base, _as_base(held, name, members), base.code, members))
    for name, changes in (*CHANGES.items(), *forged_bundles.CHANGES.items()):
        base, whole = held[name]
        for what, change in changes.items():
            members = with_manifest(change(whole))
            shown = _difference(name, whole, members)
            made.append(_vector(f"{name}: {what}", base, shown, BROKEN, members))
    base, whole = held["plain"]
    unlisted = in_line(R, 1, epoch=2)(whole)
    shown = _difference("plain", whole, unlisted)
    made.append(_vector("plain: a file the manifest does not fit", base, shown, BROKEN, unlisted))
    renamed = text_of("operator.note", "w2.example", "w0.example")
    for what, change in {
        "cut before the end of the run": cut,
        "a cosignature under another's name counts for nothing": renamed,
    }.items():
        members = with_manifest(change(whole))
        shown = _difference("plain", whole, members)
        made.append(_vector(f"plain: {what}", base, shown, LACKING, members))
    return made + [
        vector(f"no bundle: {name}", _given(base), {"tar": b64(tar), "exit": UNUSABLE}, valid=False)
        for name, tar in hostile_tars(whole).items()
    ]


def _pinning(plan: Plan) -> str:
    """A policy that pins the operator log of the plan, and ours."""
    own = f"#meshflow/v1 log {KEYS['log'].vkey(plan.operator_origin)}\n"
    return policy_text() + (own if plan.operator_origin != OPERATOR_ORIGIN else "")


def _as_base(held: Mapping[str, tuple[Base, Members]], name: str, members: Members) -> JsonObject:
    """The members in full, or the name of an earlier vector that has the very same."""
    for earlier, (_, same) in held.items():
        if earlier != name and same == members:
            return {"base": earlier, "members": {}}
    return {"members": _shown(members)}


def _shown(members: Mapping[str, bytes]) -> JsonObject:
    """Each member as its lines, every one of which a newline ends."""
    return {name: list[Json](data.decode().split("\n")[:-1]) for name, data in members.items()}


def _difference(base: str, whole: Members, members: Members) -> JsonObject:
    changed = {name: data for name, data in members.items() if whole[name] != data}
    return {"base": base, "members": _shown(changed)}


def _given(base: Base) -> JsonObject:
    return {"policy": base.policy, "now": base.now, "max_age_seconds": base.max_age}


def _vector(name: str, base: Base, shown: JsonObject, code: int, members: Members) -> JsonObject:
    out = shown | {"exit": code, "tar_sha256": sha256(tar_of(members)).hexdigest()}
    return vector(name, _given(base), out, valid=code in {HOLDS, LACKING})
