"""A chart and its numbers, apart: a page that follows a run sends new numbers to a chart that stands still."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd
from altair.utils import schemapi


@dataclass(frozen=True)
class Drawing:
    """A Vega-Lite chart whose layers name their tables (`table`)."""

    spec: Mapping[str, Any]
    """Without the numbers; of `layered`."""
    tables: Mapping[str, pd.DataFrame]
    alt: str
    """What it shows, in words, for those who cannot see it."""

    def svg(self, width: int = 900) -> str:
        """The chart with its numbers as a file to be kept: on white, fetching nothing."""
        import vl_convert

        rows = {name: json.loads(table.to_json(orient="records")) for name, table in self.tables.items()}
        spec = {"width": width, "background": "white", **self.spec, "datasets": rows}
        return str(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))


def layered(layers: Sequence[alt.Chart], height: int, *params: alt.Parameter) -> dict[str, Any]:
    """The specification of these layers. As wide as there is room; the height is that of the plot, without axes and
    legend. The `params` are held by the last layer that has a colour by field: a legend obeys only those of its own."""
    coloured = [place for place, layer in enumerate(layers) if isinstance(layer.encoding.color, alt.Color)]
    drawn = [layer.add_params(*params) if coloured[-1:] == [place] else layer for place, layer in enumerate(layers)]
    found = alt.layer(*drawn).properties(height=height).to_dict(validate=False)
    assert isinstance(found, dict)
    return {**found, "autosize": {"type": "fit-x", "contains": "padding"}}


def table(name: str) -> alt.Chart:
    """A layer over the table with this name."""
    return alt.Chart(alt.NamedData(name))


@contextmanager
def unchecked() -> Iterator[None]:
    """Builds charts without holding every part against Vega-Lite's schema, which takes most of the time. The tests
    hold the whole of each against it."""
    with schemapi.debug_mode(False):
        yield
