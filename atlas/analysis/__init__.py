"""Statistics of runs: pure functions from numbers to frozen results. No torch, no database."""
