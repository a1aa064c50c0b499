"""The methods a job file can name under `method:`. To add one: a file here, and a name in this union."""

from typing import Annotated

from pydantic import Field

from atlas.methods.evaluate import Evaluate
from atlas.methods.gkd import Gkd
from atlas.methods.gkd_reward import GkdReward
from atlas.methods.grpo import Grpo
from atlas.methods.sft import Sft

AnyMethod = Annotated[Sft | Gkd | Grpo | GkdReward | Evaluate, Field(discriminator="type")]

__all__ = ["AnyMethod", "Evaluate", "Gkd", "GkdReward", "Grpo", "Sft"]
