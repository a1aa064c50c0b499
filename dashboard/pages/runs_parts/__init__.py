"""The parts of the page of runs: which are shown, the table, what was chosen in it, the experiments."""
