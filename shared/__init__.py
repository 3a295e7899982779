"""The contract between the tiers: ids, events, the job, the log, the queue, settings. Imports neither tier."""
