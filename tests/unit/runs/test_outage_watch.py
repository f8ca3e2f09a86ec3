"""Who was cut off itself takes nobody for dead: not before it beats, and not right afterwards."""

from app.runs.outage_watch import OutageWatch


def beating(*moments: float) -> OutageWatch:
    watch = OutageWatch(lease_seconds=30, outage_seconds=28)
    for moment in moments:
        watch.beaten(moment)
    return watch


def test_before_its_first_heartbeat_a_process_judges_nobody() -> None:
    assert not beating().may_judge(1000)
    assert beating(1000).may_judge(1000)


def test_a_process_that_cannot_beat_judges_nobody() -> None:
    watch = beating(1000, 1001)
    assert watch.may_judge(1029)
    assert not watch.may_judge(1029.5)


def test_after_an_outage_the_others_have_half_a_lease_to_come_back() -> None:
    watch = beating(1000, 1029)
    assert not watch.may_judge(1029)
    watch.beaten(1030)
    assert not watch.may_judge(1043.5)
    assert watch.may_judge(1044)


def test_a_pause_that_leaves_nobody_silent_is_no_outage() -> None:
    assert beating(1000, 1028).may_judge(1028)
