"""How tests/conftest.py shares the tests out among two processes. Groups that are not kept show in nothing but flaky tests."""

from xdist.scheduler import LoadScopeScheduling

from tests.conftest import LONG_GROUPS, Groups


def group_of(nodeid: str) -> str:
    return Groups._split_scope(Groups.__new__(Groups), nodeid)


def test_what_asks_for_a_tests_group_is_what_ours_overrides() -> None:
    assert "_split_scope" in vars(LoadScopeScheduling)


def test_the_long_groups_stay_together_and_every_other_file_is_one() -> None:
    for one, other, group in (
        ("tests/system/test_up.py::test_a", "tests/system/test_demo.py::test_b[a::b]", "processes"),
        ("tests/browser/test_page.py::test_a", "tests/browser/test_looks.py::test_b", "browser"),
        ("tests/unit/test_engine_batching.py::test_a", "tests/unit/test_providers_local.py::test_b", "model"),
        ("tests/unit/test_web_hub.py::test_a", "tests/unit/test_web_hub.py::test_b[1]", "test_web_hub"),
    ):
        assert group_of(one) == group_of(other) == group
        assert group == "test_web_hub" or group in LONG_GROUPS
