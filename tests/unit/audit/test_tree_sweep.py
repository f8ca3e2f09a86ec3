"""The tree that a sweep makes of leaves is the one of the specification, whenever it is asked for.

Threat: Ledger tampering
"""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.audit.sweep_report import LogReport
from app.audit.tree_sweep import TreeSweep
from app.domain.run import TenantId
from tests.support.small_log import root_of
from tests.unit.ledger.test_canonical_header import BOUNDED

LOG, RUN = TenantId(UUID(int=7)), bytes(range(16))


def data_of(seq: int) -> bytes:
    named = b"".join(len(part).to_bytes(4, "big") + part for part in (LOG.bytes, RUN))
    return b"meshflow-ledger/v1/leaf\0" + named + seq.to_bytes(8, "big") + bytes([seq % 251]) * 32


@given(asked=st.sets(st.sampled_from([0, 1, 2, 3, 100, 255, 256, 257, 511, 512, 513, 600])))
@BOUNDED
def test_the_root_is_that_of_all_leaves_so_far(asked: set[int]) -> None:
    report = LogReport(log=LOG.bytes, tenant="acme")
    sweep = TreeSweep(LOG, report)
    for size in range(max(asked, default=0) + 1):
        if size in asked:
            assert sweep.root() == root_of([data_of(seq) for seq in range(size)])
            assert sweep.size == size
        sweep.add(size, RUN, size, bytes([size % 251]) * 32)
    assert report.broken == 0
