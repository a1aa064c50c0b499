"""Parts of the page `traces`."""
