"""Who reaches what is served: nobody else without keys, and nobody else at all where workers can be killed."""

import pytest

from shared.errors import ConfigurationError
from shared.exposure import check_chaos, check_exposure
from shared.settings import Settings
from tests.support.tenants import API_KEYS


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_loopback_needs_no_permission(host: str) -> None:
    check_exposure(Settings(host=host))
    check_chaos(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_anything_else_is_refused_and_the_line_says_why_and_how(host: str) -> None:
    line = r"can be reached from other machines.*`lastevent keys new NAME`.*LASTEVENT_API_KEYS.*LASTEVENT_ALLOW_REMOTE=1"
    with pytest.raises(ConfigurationError, match=line):
        check_exposure(Settings(host=host))


@pytest.mark.parametrize("settings", [Settings(host="0.0.0.0", allow_remote=True), Settings(host="::", api_keys=API_KEYS)])
def test_unless_there_are_keys_or_it_is_wanted_without_but_never_with_chaos(settings: Settings) -> None:
    check_exposure(settings)
    with pytest.raises(ConfigurationError, match=r"loopback alone: leave it out, or unset LASTEVENT_ALLOW_REMOTE and use"):
        check_chaos(settings)


@pytest.mark.parametrize("host", ["nowhere.invalid", ""])
def test_a_host_without_an_address_is_one_line(host: str) -> None:
    """An empty one would be bound to all addresses."""
    with pytest.raises(ConfigurationError, match=f"host '{host}' has no address"):
        check_exposure(Settings(host=host))
