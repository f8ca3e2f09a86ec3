"""Vectors of policies and of the origins that they name."""

from collections.abc import Sequence

from scripts.vector_keys import (
    DEPLOYMENT,
    KEYS,
    OPERATOR_ORIGIN,
    TENANT,
    WITNESSES,
    policy_text,
)
from scripts.vector_parts import Json, JsonObject, vector


def origins() -> list[JsonObject]:
    """Origins of ledgers, and those of other logs."""
    log = TENANT.hex()
    made: list[JsonObject] = []
    for deployment in ("a", "vectors.example/mesh", "x-1.example/a_b/c.d", "x/ledger/y"):
        for recovery in ("", "/r12"):
            origin = f"{deployment}/ledger/{log}{recovery}"
            out: JsonObject = {"deployment": deployment, "log": log}
            made.append(vector(origin, {"origin": origin}, out))
    for wrong in (
        f"a/other/{log}",
        f"a/ledger/{log}/r0",
        f"a/ledger/{log}/r01",
        f"a/ledger/{log}/s1",
        f"a/ledger/{log[1:]}",
        f"a/ledger/{log.upper()}",
        f"A/ledger/{log}",
        f"a//ledger/{log}",
        f"/ledger/{log}",
        f"a/ledger/{log}/",
    ):
        out = {"deployment": "a", "log": log}
        made.append(vector(wrong, {"origin": wrong}, out, valid=False))
    return made


def policies() -> list[JsonObject]:
    """Policies and who cosigned; those that cannot be used are held by nobody's cosignatures."""
    names = list(WITNESSES)
    text = policy_text()
    witness = next(line for line in text.splitlines() if line.startswith("witness w0"))
    log = next(line for line in text.splitlines() if line.startswith("log "))
    nested = text.replace("group two 2 w0 w1 w2", "group one any w0 w1\ngroup two all one w2")
    made: list[JsonObject] = []

    def add(what: str, policy: str, present: Sequence[str], *, valid: bool) -> None:
        given: JsonObject = {"cosigned_by": list[Json](present)}
        made.append(vector(what, given, {"policy": policy}, valid=valid))

    add("two of three", text, names[:2], valid=True)
    add("one of three", text, names[:1], valid=False)
    add("groups in groups", nested, names[1:], valid=True)
    add("groups in groups, one missing", nested, names[:2], valid=False)
    alone = text.replace("quorum two", "quorum w1")
    add("one witness alone", alone, names[1:2], valid=True)
    add("one witness alone, another came", alone, [names[0], names[2]], valid=False)
    spaced = text.replace("group two", " \tgroup\t two").replace("\n\n", "\n \t\n")
    add("spaces and tabs", spaced, names[:2], valid=True)
    add("spaces and tabs, nobody came", spaced, [], valid=False)
    vkey = KEYS["log"].vkey(f"{OPERATOR_ORIGIN}/r1")
    renamed = text + f"#meshflow/v1 log {vkey}\n"
    add("a log under a second origin", renamed, names[:2], valid=True)
    add("a log under a second origin, nobody came", renamed, [], valid=False)
    unusable = {
        "an erasure key that is a log's second": renamed.replace(
            KEYS["erasure"].vkey(f"{DEPLOYMENT}/erasure"), KEYS["log"].vkey(f"{DEPLOYMENT}/erasure")
        ),
        "no quorum": text.replace("quorum two\n", ""),
        "two quorums": text + "quorum w0\n",
        "a quorum of an unknown name": text.replace("quorum two", "quorum three"),
        "a group before its witnesses": "group early any w0\n" + text,
        "a member twice": text.replace("2 w0 w1 w2", "2 w0 w0 w2"),
        "more than there are": text.replace("two 2 w0", "two 4 w0"),
        "none at all": text.replace("two 2 w0", "two 0 w0"),
        "a witness's key twice": text.replace(witness, f"{witness}\n{witness.replace('w0', 'x')}"),
        "a log's key twice": text.replace(log, f"{log}\n{log}"),
        "a name twice": text.replace("group two", "group w0"),
        "a carriage return": text.replace("\n", "\r\n"),
        "a witness key of type 0x01": text.replace(
            witness, f"witness w0 {WITNESSES[names[0]].vkey(names[0])}"
        ),
        "a key id that is not the key's": text.replace("w0.example+", "w0.example+0"),
        "a line of an unknown kind": text + "mirror w0\n",
        "a log line of four words": text.replace(log, f"{log} a b"),
        "a witness line of five words": text.replace(witness, f"{witness} a b"),
        "a group without members": text + "group three any\n",
        "a witness of the name none": text.replace("w0", "none"),
        "a threshold with a zero in front": text.replace("two 2", "two 02"),
        "a pin of four words": text[:-1] + " more\n",
        "a pin of another version": text.replace("#meshflow/v1 erasure", "#meshflow/v2 erasure"),
        "a control character in a comment": text + "# \x01\n",
        "a last line without an end": text[:-1],
        "a comment of another version of ours": text + "#meshflow/v2 erasure\n",
        "an enrolment key that is a log's": text.replace(
            KEYS["enrolment"].vkey(f"{DEPLOYMENT}/enrolment"),
            KEYS["log"].vkey(f"{DEPLOYMENT}/enrolment"),
        ),
        "a pin for an unknown purpose": text.replace("v1 erasure", "v1 erazure"),
    }
    for what, policy in unusable.items():
        add(what, policy, names, valid=False)
    return made
