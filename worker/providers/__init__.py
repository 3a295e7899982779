"""One module a provider, each behind the interface of `base.py`."""
