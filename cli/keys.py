"""`lastevent keys new`: an API key, shown once, and what the server is told of it."""

import json

from shared.api_keys import new_key
from shared.errors import ConfigurationError

_SHOWN = """\
The key of {name}, shown this once and kept nowhere. It goes to whoever calls:

  {key}

The server is told its SHA-256 alone. Add this to LASTEVENT_API_KEYS (comma-separated), or to api_keys in lastevent.toml, and
start its web processes anew:

  {entry}

Used by `lastevent ask` and its like:  export LASTEVENT_API_KEY=le_…
     by whatever speaks HTTP:          curl -H "Authorization: Bearer $LASTEVENT_API_KEY" http://127.0.0.1:8000/v1/models
"""


def made_key(name: str, *, as_json: bool) -> str:
    """A new key for a tenant, as it is printed.

    Raises:
        ConfigurationError: the name cannot be a tenant's.
    """
    try:
        key, known = new_key(name)
    except ValueError as error:
        raise ConfigurationError(f"{name!r} cannot be the name of a key: {error}") from None
    if as_json:
        return json.dumps({"name": name, "key": key, "entry": known.entry}) + "\n"
    return _SHOWN.format(name=name, key=key, entry=known.entry)
