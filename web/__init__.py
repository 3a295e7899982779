"""Starlette: takes jobs, turns event logs into SSE connections, serves the page."""
