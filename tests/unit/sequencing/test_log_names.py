"""A log keeps its name, only a recovery adds to it: no fresh start for who renames it."""

import pytest

from app.sequencing.log_names import is_name_after, log_origin, next_origin

LOG = bytes(range(16))
OWN = log_origin("a.test/mesh", LOG)


@pytest.mark.parametrize(
    ("origin", "before"),
    [
        (OWN, None),
        (OWN, OWN),
        (next_origin(OWN), OWN),
        (next_origin(next_origin(OWN)), OWN),
        (next_origin(OWN), next_origin(OWN)),
        (next_origin(OWN), None),
    ],
)
def test_a_log_is_signed_under_its_own_name_and_those_of_its_recoveries(
    origin: str, before: str | None
) -> None:
    assert is_name_after(origin, before, LOG)


@pytest.mark.parametrize(
    ("origin", "before"),
    [
        (log_origin("b.test", LOG), OWN),
        (log_origin("a.test/mesh", bytes(16)), OWN),
        (log_origin("a.test/mesh", bytes(16)), None),
        (OWN, next_origin(OWN)),
        (OWN + "x", None),
        (OWN + "/r0", OWN),
        ("", None),
    ],
)
def test_no_other_name_is_signed(origin: str, before: str | None) -> None:
    assert not is_name_after(origin, before, LOG)
