"""Vectors of headers: one that has every member, and one wrong member each in its twins."""

import json
from collections.abc import Mapping

from scripts.vector_keys import FIRST, RUN, TENANT
from scripts.vector_parts import Json, JsonObject, Run, canonical, fixed, vector

POLICY: JsonObject = {
    "id": "builtin",
    "ver": 1,
    "digest": fixed("policy", 32).hex(),
    "verdict": "allow",
    "rules": ["a.b"],
}
SCRUB: JsonObject = {
    "counts": {"email": 1},
    "engine": "re2/1",
    "hmac_key": None,
    "mode": "standard",
    "ms": None,
    "ner": None,
    "policy": "default/1",
    "rules": "r",
    "status": "ok",
    "unscanned": 0,
}
USAGE: JsonObject = {"cost_micros": 1, "input_tokens": 2, "output_tokens": 3}
FULL: JsonObject = {
    "intent": 1,
    "parent": RUN.hex(),
    "policy": POLICY,
    "model": "M-1:x",
    "engine": "native",
    "tool": fixed("tool", 32).hex(),
    "usage": USAGE,
    "outcome": "ok",
    "sandbox": "none",
    "approval": fixed("approval", 16).hex(),
    "scrub": SCRUB,
}
COMMIT = fixed("commitment", 32).hex()
WRONG: Mapping[str, JsonObject] = {
    "v": {"v": 2},
    "v that is true": {"v": True},
    "log": {"log": TENANT.hex().upper()},
    "run": {"run": None},
    "seq": {"seq": -1},
    "seq that is text": {"seq": "2"},
    "epoch": {"epoch": True},
    "kind": {"kind": "Run finished"},
    "ts": {"ts": "2026-08-01T12:00:02Z"},
    "event_id": {"event_id": "00"},
    "nonce": {"nonce": 0},
    "actor": {"actor": "key:alice"},
    "writer": {"writer": None},
    "intent that comes later": {"intent": 2},
    "intent": {"intent": -1},
    "parent": {"parent": "none"},
    "policy": {"policy": "builtin"},
    "policy without a verdict": {"policy": {n: v for n, v in POLICY.items() if n != "verdict"}},
    "policy with a version that is text": {"policy": POLICY | {"ver": "1"}},
    "policy with a rule that is none": {"policy": POLICY | {"rules": [1]}},
    "model in prose": {"model": "the model"},
    "engine": {"engine": ""},
    "tool": {"tool": "calculator"},
    "usage": {"usage": USAGE | {"cost_micros": -1}},
    "usage with a member too many": {"usage": USAGE | {"seconds": 1}},
    "outcome in prose": {"outcome": "it went well"},
    "sandbox": {"sandbox": 1},
    "approval": {"approval": "yes"},
    "scrub": {"scrub": []},
    "scrub with a member too many": {"scrub": SCRUB | {"more": 1}},
    "scrub with a count that is text": {"scrub": SCRUB | {"counts": {"email": "1"}}},
    "size": {"size": []},
    "size of another field": {"size": {"output": 1}},
    "commit": {"commit": {"task": "00"}},
    "fields that are none": {"size": {"tusk": 1}, "commit": {"tusk": COMMIT}},
    "a key in upper case": {"scrub": SCRUB | {"counts": {"Email": 1}}},
    "seven levels": {"scrub": SCRUB | {"rules": [[[[[1]]]]]}},
    "more than 8 KiB": {"scrub": SCRUB | {"rules": "r" * 8192}},
    "a number beyond 2^53 - 1": {"epoch": 2**53},
    "a float": {"usage": USAGE | {"cost_micros": 1.0}},
}


def headers() -> list[JsonObject]:
    """Header bytes that are one, and those that are none."""
    run = Run(log=TENANT, run=RUN)
    for _ in range(2):
        run.add("run.started", {}, FIRST)
    raw = run.add("run.finished", {"task": b'"x"'}, FIRST, **FULL).header
    members: JsonObject = json.loads(raw)
    out = {"six levels": members | {"scrub": SCRUB | {"rules": [[[[1]]]]}}, "every member": members}
    made = [vector(name, {}, {"header": canonical(m).hex()}) for name, m in out.items()]
    for name, wrong in WRONG.items():
        spoiled: dict[str, Json] = members | wrong
        made.append(vector(name, {}, {"header": canonical(spoiled).hex()}, valid=False))
    for name in members:
        less = {n: v for n, v in members.items() if n != name}
        made.append(vector(f"without {name}", {}, {"header": canonical(less).hex()}, valid=False))
    return made
