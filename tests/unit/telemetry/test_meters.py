"""Labels stay few, whatever tenants there are."""

from app.telemetry.meters import (
    MOST_TENANTS,
    OTHERS,
    REGISTRY,
    TenantLoad,
    exposition,
    show_loads,
)


def value(name: str, tenant: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"tenant": tenant})


def test_beyond_so_many_tenants_the_rest_is_one_sum_and_nothing_is_lost() -> None:
    count = MOST_TENANTS + 30
    loads = [TenantLoad(tenant=f"t{n}", waiting=n, running=1) for n in range(1, count + 1)]
    show_loads(loads)
    lines = [
        line for line in exposition().decode().splitlines() if line.startswith("meshflow_runs")
    ]
    waiting = [line for line in lines if line.startswith("meshflow_runs_waiting{")]
    assert len(waiting) == MOST_TENANTS + 1
    assert value("meshflow_runs_waiting", f"t{count}") == count
    assert value("meshflow_runs_waiting", "t1") is None
    assert value("meshflow_runs_waiting", OTHERS) == sum(range(1, 31))
    assert value("meshflow_runs_running", OTHERS) == 30
    assert sum(float(line.rsplit(" ", 1)[1]) for line in waiting) == sum(range(1, count + 1))


def test_a_tenant_that_has_nothing_any_more_is_not_told() -> None:
    show_loads([TenantLoad(tenant="here", waiting=1, running=0)])
    assert value("meshflow_runs_waiting", "here") == 1
    show_loads([])
    assert value("meshflow_runs_waiting", "here") is None
