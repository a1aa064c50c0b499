"""On-policy distillation: the student writes, the teacher scores every token."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from atlas.errors import Problem, SpecError
from atlas.methods.base import Method
from atlas.spec import Spec

if TYPE_CHECKING:
    from atlas.job import JobSpec
    from atlas.run import Run


class TopKSpec(Spec):
    """The divergence over the k likeliest tokens, with all others together as one more."""

    k: int = Field(ge=1, le=10_000)
    """How many tokens."""
    of: Literal["student", "teacher"] = "student"
    """Whose likeliest tokens."""


class Gkd(Method):
    """Generalized knowledge distillation (arXiv:2306.13649), fully on-policy by default.

    The loss is the mean over completion tokens of the generalized Jensen-Shannon divergence (eq. 1) between the
    teacher's and the student's next-token distributions, on the student's own rollouts.
    """

    type: Literal["gkd"] = "gkd"
    needs_teacher: ClassVar[bool] = True
    samples_rollouts: ClassVar[bool] = True
    aligns_tokenizers: ClassVar[bool] = True

    lmbda: float = Field(1.0, ge=0, le=1)
    """Share of steps on the student's own rollouts; the rest learn from the dataset's solutions, or with `seq_kd` from
    completions that the teacher writes."""
    seq_kd: bool = False
    """Whether the steps that are not on the student's rollouts use completions written by the teacher."""
    loss: Literal["divergence", "policy_gradient"] = "divergence"
    """`divergence`: between the distributions at every token. `policy_gradient`: only of the token that was written,
    with log teacher - log student as its advantage: an estimate of the gradient of beta 1, cheaper and noisier."""
    beta: float = Field(1.0, ge=0, le=1)
    """The divergence: 0 is forward KL(teacher || student), 1 is reverse KL(student || teacher), between is JSD."""
    top_k: TopKSpec | None = None
    """Compare only the likeliest tokens one by one. Default: the whole vocabulary."""
    alignment: Literal["push_forward", "gold", "uld"] = "push_forward"
    """How distributions over different vocabularies are compared, where student and teacher tokenize differently.
    `push_forward`: exactly, on the tokens that both have, to which all others are added up. For comparison, the losses
    of TRL's GOLDTrainer: `gold`, whose own default of `beta` is 0.5, and `uld` (arXiv:2402.12030), which compares
    sorted probabilities and has no `beta`."""
    temperature: float = Field(1.0, gt=0, le=10)
    """Softmax temperature of both models inside the loss. (`sampling.temperature` is that of the rollouts.)"""

    def check(self, job: "JobSpec") -> None:
        super().check(job)
        problems = []
        if self.seq_kd and self.lmbda == 1:
            problems.append(Problem("every step is on rollouts (lmbda 1), so this would be ignored", "method.seq_kd"))
        if self.loss == "policy_gradient":
            message = "would be ignored with loss policy_gradient, which estimates the reverse KL of the written token"
            if self.beta != 1:
                problems.append(Problem(f"{self.beta:g} {message}; set 1 or leave it out", "method.beta"))
            if self.temperature != 1:
                problems.append(Problem(f"{message}; leave it out", "method.temperature"))
            if self.top_k is not None:
                problems.append(Problem(f"{message}; leave it out", "method.top_k"))
            if self.lmbda < 1:
                message = "needs the student's own rollouts in every step; set method.lmbda to 1"
                problems.append(Problem(f"policy_gradient {message}", "method.loss"))
        if self.alignment != "push_forward":
            for field, default in (("loss", "divergence"), ("top_k", None), ("beta", 1.0)):
                if getattr(self, field) != default and (self.alignment, field) != ("gold", "beta"):
                    message = f"would be ignored with alignment {self.alignment}; leave it out"
                    problems.append(Problem(message, f"method.{field}"))
        if problems:
            raise SpecError(problems)

    @property
    def needs_solutions(self) -> bool:
        return self.lmbda < 1 and not self.seq_kd

    def train(self, run: "Run") -> Path:
        from atlas.training.gkd import train

        return train(run, self)
