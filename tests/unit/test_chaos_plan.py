"""What a seed decides (tests/chaos/plan.py): all of it, and a longer run begins as a shorter one."""

from tests.chaos.plan import KINDS, make_plan


def test_a_seed_is_the_whole_plan() -> None:
    once, again = (make_plan(7, 60, lease_s=5, every_s=2.5) for _ in range(2))
    assert once == again
    assert make_plan(8, 60, lease_s=5, every_s=2.5) != once


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    short, long = make_plan(7, 30, lease_s=5, every_s=2.5), make_plan(7, 300, lease_s=5, every_s=2.5)
    assert long.jobs[: len(short.jobs)] == short.jobs
    assert long.faults[: len(short.faults)] == short.faults


def test_every_kind_of_fault_strikes_in_the_run_of_the_tests() -> None:
    plan = make_plan(21, 20, lease_s=1.5, every_s=1.2)
    assert {fault.kind for fault in plan.faults} == set(KINDS)
