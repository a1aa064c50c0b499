"""Where else a run's metrics are shown, besides its run directory. A monitor reads `metrics.jsonl` from a process of
its own, so it can neither slow nor break training."""
