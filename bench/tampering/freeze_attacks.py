"""An old state shown as if it were the newest: in the database, to whoever reads from a server.

The attacker holds what the deployment holds, so nothing of what is shown is wrong. What tells it is
its age: the answers say how far the witnesses have seen (D10). Old bundles: `bundle_attacks.py`.
"""

from bench.tampering.attack import AttackClass, Deed
from bench.tampering.hands import Hands
from bench.tampering.run_ref import RunRef

_OPERATOR = "SELECT tenant_id FROM tenants WHERE name = '!operator'"
# Where in the operator log the first checkpoint stands that has a record of the run.
_FIRST_SEEN = """
SELECT min(a.idx) FROM checkpoint c JOIN leaf a ON a.run_id = c.anchor_run AND a.seq = c.anchor_seq
JOIN leaf l ON l.tenant_id = c.tenant_id AND l.idx < c.size
WHERE c.tenant_id = $1 AND l.run_id = $2 AND l.seq = 0
"""


def _new(hands: Hands) -> RunRef:
    closed = hands.scene.closed
    return closed[-1 - hands.rng.randrange(len(closed) // 3)]


async def without_its_cosignatures(hands: Hands) -> Deed:
    """The cosignatures of operator checkpoints that have the run are gone: an older is shown."""
    run = _new(hands)
    operator = await hands.sql.fetchval(_OPERATOR)
    first = await hands.sql.fetchval(_FIRST_SEEN, *run.ids)
    await hands.sql.execute(
        "DELETE FROM cosignature WHERE tenant_id = $1 AND size > $2", operator, first
    )
    return await _age(hands, run)


async def without_its_checkpoints(hands: Hands) -> Deed:
    """The operator checkpoints that have the run are gone as well."""
    run = _new(hands)
    operator = await hands.sql.fetchval(_OPERATOR)
    first = await hands.sql.fetchval(_FIRST_SEEN, *run.ids)
    for table in ("cosignature", "checkpoint"):
        await hands.sql.execute(
            f"DELETE FROM {table} WHERE tenant_id = $1 AND size > $2",  # noqa: S608 - an attacker's own SQL
            operator,
            first,
        )
    return await _age(hands, run)


async def without_the_tenants_checkpoints(hands: Hands) -> Deed:
    """The tenant's own checkpoints that have the run are gone."""
    run = _new(hands)
    await hands.sql.execute(
        "DELETE FROM checkpoint WHERE tenant_id = $1 AND size > (SELECT min(idx) FROM leaf"
        " WHERE tenant_id = $1 AND run_id = $2)",
        *run.ids,
    )
    return await _age(hands, run)


async def _age(hands: Hands, run: RunRef) -> Deed:
    """A reader is told that no witness has seen these records, or that the run is broken."""
    async with hands.scene.client(run.tenant) as http:
        told = (await http.get(f"/v1/runs/{run.public}/verification")).json()
    if told["verdict"] != "valid":
        return Deed(runs=(run,))
    said = told["integrity"]
    if said["state"] == "pending" and said["unwitnessed"] == said["size"]:
        return Deed(signs=("D10",))
    return Deed(quiet=str(said))


CLASSES = (
    AttackClass(
        number=28,
        title="freeze: serve an old checkpoint",
        who="A4",
        named=frozenset({"D10"}),
        acts=(
            ("cosignatures", without_its_cosignatures),
            ("operator checkpoints", without_its_checkpoints),
            ("tenant's checkpoints", without_the_tenants_checkpoints),
        ),
        needs=frozenset({"log"}),
    ),
)
