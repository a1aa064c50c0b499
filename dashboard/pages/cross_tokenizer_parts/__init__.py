"""Parts of the page `cross_tokenizer`."""
