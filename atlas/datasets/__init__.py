"""The datasets a job file can name under `dataset:`. To add one: a file here, and a name in this union."""

from typing import Annotated

from pydantic import Field

from atlas.datasets.arithmetic import Arithmetic
from atlas.datasets.gsm8k import Gsm8k
from atlas.datasets.jsonl import Jsonl
from atlas.datasets.metamathqa import MetaMathQA
from atlas.datasets.traces import Traces

AnyDataset = Annotated[MetaMathQA | Gsm8k | Jsonl | Arithmetic | Traces, Field(discriminator="type")]

__all__ = ["AnyDataset", "Arithmetic", "Gsm8k", "Jsonl", "MetaMathQA", "Traces"]
