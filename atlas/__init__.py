"""Atlas: run and compare ways to post-train a language model.

Imports nothing at the top, so that `atlas --help` stays fast. The map of the rooms is `docs/architecture.md`.
"""

__version__ = "0.1.0"
