"""No test: `tests/compose/run` brings up docker-compose.yml as it stands, strikes it, and compares every reader's text."""
