"""What agents did, as records: the line schema, reading it, and sessions put together from it. No store, no torch."""
