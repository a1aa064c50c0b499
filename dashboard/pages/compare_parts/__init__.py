"""The parts of the page Compare, in the order in which they stand on it."""
