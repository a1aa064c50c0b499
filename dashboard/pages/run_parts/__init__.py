"""The parts of the page of one run: its head, curves, log, spec and files."""
