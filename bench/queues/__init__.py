"""Task queues of others, each with a task whose first line says when it was reached. Run by a Python of their own: two of them
want another redis-py than arq does (`bench.queue_peers`)."""
