"""Free turns are shared out so that no tenant and no dead endpoint takes those of the others."""

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.domain.run import TenantId
from app.domain.webhook import EndpointId
from app.storage.webhook_store import Due
from app.webhooks.fair_turns import FairTurns, TurnLimits

LIMITS = TurnLimits()


def item(tenant: int, endpoint: int, *, failing: bool = False) -> Due:
    return Due(
        tenant_id=TenantId(UUID(int=tenant)),
        endpoint_id=EndpointId(UUID(int=tenant * 1_000_000 + endpoint)),
        failing=failing,
    )


def flat(turns: FairTurns, due: list[Due]) -> Counter[Due]:
    shared = turns.share(due)
    return Counter(
        {one: count for given_out in shared.values() for one, count in given_out.items()}
    )


def test_one_tenant_alone_gets_its_part_and_no_more() -> None:
    given_out = flat(FairTurns(LIMITS), [item(1, number) for number in range(1000)])
    assert given_out.total() == LIMITS.of_a_tenant
    assert max(given_out.values()) == 1


def test_one_endpoint_alone_gets_its_part_and_no_more() -> None:
    assert flat(FairTurns(LIMITS), [item(1, 1)]) == {item(1, 1): LIMITS.of_an_endpoint}


def test_an_endpoint_that_failed_gets_one_turn_at_a_time() -> None:
    turns, dead = FairTurns(LIMITS), item(1, 1, failing=True)
    assert flat(turns, [dead]) == {dead: 1}
    turns.begin(dead)
    assert flat(turns, [dead]) == {}
    turns.end(dead)
    assert flat(turns, [dead]) == {dead: 1}


def test_a_healthy_endpoint_comes_before_those_that_failed() -> None:
    turns = FairTurns(LIMITS)
    due = [item(1, number, failing=True) for number in range(100)] + [item(1, 500)]
    given_out = flat(turns, due)
    assert given_out[item(1, 500)] == LIMITS.of_an_endpoint
    assert given_out.total() == LIMITS.of_an_endpoint + LIMITS.failing_of_a_tenant


def test_dead_endpoints_of_a_hundred_tenants_leave_half_of_the_turns() -> None:
    turns = FairTurns(LIMITS)
    due = [item(tenant, number, failing=True) for tenant in range(100) for number in range(20)]
    for one, count in flat(turns, due).items():
        for _ in range(count):
            turns.begin(one)
    assert flat(turns, due) == {}
    assert flat(turns, [*due, item(500, 1)])[item(500, 1)] > 0


def test_whoever_has_the_least_under_way_is_asked_first() -> None:
    limits = TurnLimits(at_once=9, of_a_tenant=8)
    turns = FairTurns(limits)
    for number in range(8):
        turns.begin(item(1, number))
    assert flat(turns, [item(1, 9), item(2, 1)]) == {item(2, 1): 1}


@given(
    st.lists(
        st.builds(item, st.integers(0, 9), st.integers(0, 9), failing=st.booleans()), max_size=80
    ),
    st.integers(0, 40),
)
def test_no_limit_is_ever_passed(due: list[Due], begun: int) -> None:
    limits = TurnLimits(
        at_once=20, of_a_tenant=5, of_an_endpoint=3, failing=8, failing_of_a_tenant=2
    )
    turns, under_way = FairTurns(limits), list[Due]()
    unique = list({one.endpoint_id: one for one in due}.values())
    for _ in range(3):
        for one, count in flat(turns, unique).items():
            under_way += [one] * count
            for _ in range(count):
                turns.begin(one)
        assert len(under_way) <= limits.at_once
        assert sum(one.failing for one in under_way) <= limits.failing
        for tenant, count in Counter(one.tenant_id for one in under_way).items():
            assert count <= limits.of_a_tenant, tenant
        for one, count in Counter(under_way).items():
            assert count <= (1 if one.failing else limits.of_an_endpoint)
        for one in under_way[:begun]:
            turns.end(one)
        del under_way[:begun]
