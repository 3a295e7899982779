"""A provider's key, on its way into a header. No I/O."""

from shared.errors import GenerationFailed
from shared.providers import ProviderConfig


def usable_key(config: ProviderConfig, *, wanted: bool = False) -> str:
    """The key without the white space around it; empty where there is none, and none is wanted.

    Args:
        wanted: the server is known to want one, whatever the configuration says.

    Raises:
        GenerationFailed: `auth`, with what to do about it and never the key.
    """
    key = bare_key(config)
    if not key and (wanted or config.key_wanted):
        if config.key_env is None:
            raise GenerationFailed("auth", f"{config.name} has no key: {config.key_advice()}.")
        raise GenerationFailed("auth", f"{config.key_env} is not set where the workers run: set it and start them again.")
    if not (key.isascii() and key.isprintable()):
        # The header's own error would show the key.
        told = f"{config.key_env} holds characters that no key has: set it again and start the workers again."
        raise GenerationFailed("auth", told)
    return key


def bare_key(config: ProviderConfig) -> str:
    """The key as it was set, usable or not: what must not show."""
    return config.key.get_secret_value().strip()
