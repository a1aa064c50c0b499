"""A comparison as one file to read, sign and keep: HTML or Markdown, self-contained."""
