"""arq: turns one job into one event log. Providers and the local engine live here."""
