"""shared/api_keys.py: what a server knows of a key, and finds by it."""

import hashlib

import pytest
from pydantic import SecretStr

from shared.api_keys import PREFIX, ApiKey, digest_of, new_key, parse_entries, tenant_of

A, B = "a" * 64, "B" * 64


def key(name: str, secret: bytes) -> ApiKey:
    return ApiKey(name, SecretStr(digest_of(secret)))


def test_a_new_key_is_long_random_and_known_by_its_digest() -> None:
    key, known = new_key("web")
    assert key.startswith(PREFIX)
    assert len(key) == len(PREFIX) + 43, "32 random bytes"
    assert known == ApiKey("web", SecretStr(hashlib.sha256(key.encode()).hexdigest()))
    assert new_key("web")[0] != key


def test_its_entry_is_read_back_as_the_same_key() -> None:
    _, known = new_key("web")
    assert parse_entries([known.entry]) == (known,)


def test_no_repr_shows_a_digest() -> None:
    _, known = new_key("web")
    assert known.entry not in repr(known)
    assert repr(known) == "ApiKey(name='web', digest=SecretStr('**********'))"


@pytest.mark.parametrize("name", ["w", "Web_2.test-x", "0", "n" * 64])
def test_what_may_be_a_name(name: str) -> None:
    assert parse_entries([f"{name}:{A}"])[0].name == new_key(name)[1].name == name


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "na\u00efve", "n" * 65, "a\n"])
def test_what_may_not(name: str) -> None:
    with pytest.raises(ValueError, match="a name has 1 to 64 letters"):
        new_key(name)
    with pytest.raises(ValueError, match="a name has 1 to 64 letters"):
        parse_entries([f"{name}:{A}"])


def test_two_keys_may_have_one_name() -> None:
    """So a key is replaced without a gap: the new one is added before the old one goes."""
    assert [known.name for known in parse_entries([f"web:{A}", f"web:{B}"])] == ["web", "web"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("web", "entry 2 must be name:sha256"),
        (f"web:{A}0", "entry 2 must be name:sha256"),
        ("web:" + "g" * 64, "entry 2 must be name:sha256"),
        ("le_" + "k" * 43, "entry 2 holds the key itself"),
        ("web:le_" + "k" * 43, "entry 2 holds the key itself"),
        (f"other:{A.upper()}", "entry 2 is the key of entry 1"),
    ],
)
def test_a_bad_entry_is_named_by_its_place_and_never_repeated(entry: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_entries([f"web:{A}", entry])
    assert entry not in str(caught.value)


def test_the_tenant_is_the_name_of_the_key_that_was_shown() -> None:
    keys = [key("web", b"first"), key("web", b"second"), key("batch", b"third")]
    assert [tenant_of(keys, shown) for shown in (b"first", b"second", b"third")] == ["web", "web", "batch"]
    assert [tenant_of(keys, shown) for shown in (b"", b"firs", b"first ", digest_of(b"first").encode())] == [None] * 4
    assert tenant_of([], b"") is None


def test_all_keys_are_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody learns from the time that it takes which of them came close, or first."""
    compared: list[str] = []

    def compare(known: str, shown: str) -> bool:
        compared.append(known)
        return known == shown

    monkeypatch.setattr("shared.api_keys.hmac.compare_digest", compare)
    keys = [key(name, name.encode()) for name in ("a", "b", "c")]
    for shown in (b"a", b"c", b"none"):
        compared.clear()
        tenant_of(keys, shown)
        assert compared == [digest_of(name) for name in (b"a", b"b", b"c")]
