"""The only room with torch, transformers and trl: loading, rollouts, evaluation, checkpoints, and one file per method.

`loop.py` is where a method's `train` starts and ends; how the pieces fit is in `docs/design/training.md`.
"""
