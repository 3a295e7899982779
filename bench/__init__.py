"""What is fast, and against what, in one run: `python -m bench`."""
