"""The chaos run: everything is struck, again and again, and every reader's text is compared with what was generated.

    make chaos                              five minutes, a new seed
    SECONDS=600 SEED=7 make chaos           ten minutes of a known one

docs/RELIABILITY.md tells what was run and what it showed. Read plan.py first, then scene.py, strikes.py and run.py.
"""
