"""What the garbage collector need not look at."""

import gc


def spare_what_stays() -> None:
    """Exempts everything made so far, modules, clients and settings, from collections: it stays for good.

    A full collection would walk a hundred thousand of its objects, 50 ms in which no token moves.
    """
    gc.freeze()
