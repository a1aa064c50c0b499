"""Parts of the page `samples`."""
