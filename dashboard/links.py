"""Addresses: every view is a URL. Widgets with `bind="query-params"` keep it up to date; these are the names they use.

Runs are named by id, never by their place in a table.
"""

from collections.abc import Sequence
from urllib.parse import urlencode

RUNS = "run"
"""Query parameter: ids of the chosen runs (on the page of one run: its id)."""
EXPERIMENT = "experiment"
"""Query parameter: id of the experiment that is compared instead of single runs."""
CLOCK, METRIC = "clock", "metric"


def address(page: str, **parameters: str | Sequence[str]) -> str:
    """`/compare?run=a&run=b`: for links, relative to the server."""
    query = urlencode([(name, value) for name, values in parameters.items() for value in _each(values)])
    return f"/{page}?{query}" if query else f"/{page}"


def _each(values: str | Sequence[str]) -> Sequence[str]:
    return [values] if isinstance(values, str) else values
