"""Charts: Vega-Lite specifications made with Altair, out of numbers that were read elsewhere."""
