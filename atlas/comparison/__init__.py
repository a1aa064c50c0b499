"""Runs side by side: out of the store and the run directories, into arrays, numbers and verdicts."""
