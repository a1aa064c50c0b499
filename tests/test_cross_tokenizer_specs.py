"""The shipped experiment across tokenizers: its arms differ only in how they learn, its tokenizers in how they read."""

from pathlib import Path

from tokenizers import Tokenizer

from atlas.experiment import load_checked

FOLDER = Path(__file__).parents[1] / "specs" / "cross_tokenizer"


def tokens(role, text):
    return Tokenizer.from_file(str(FOLDER / role / "tokenizer.json")).encode(text, add_special_tokens=False).tokens


def test_arms_differ_only_in_the_method_the_teacher_and_the_learning_rate():
    experiment = load_checked(FOLDER / "quickstart.yaml")
    elsewhere = {path for path in experiment.differences if path.split(".")[0] not in ("method", "teacher")}
    assert elsewhere <= {"training.learning_rate"}
    assert experiment.spec.allow_differences == []
    assert list(experiment.spec.arms) == ["push_forward", "gold", "uld", "grpo"]
    assert len(experiment.runs) == 12 and list(experiment.baselines) == ["student", "teacher"]


def test_each_alignment_has_an_arm_and_the_reference_is_the_default():
    runs = {run.arm: run.job.method for run in load_checked(FOLDER / "quickstart.yaml").runs}
    alignments = [runs[arm].alignment for arm in ("push_forward", "gold", "uld")]
    assert alignments == ["push_forward", "gold", "uld"]
    assert runs["push_forward"].beta == runs["gold"].beta, "ULD has no divergence to choose"


def test_the_teacher_reads_digits_one_by_one_and_the_student_in_groups():
    assert tokens("teacher", "48 + 77 = 125") == list("48Ġ+Ġ77Ġ=Ġ125")
    assert tokens("student", "48 + 77 = 125") == ["48", "Ġ", "+", "Ġ", "77", "Ġ", "=", "Ġ", "125"]


def test_every_number_of_the_problems_is_one_token_of_the_student():
    assert [n for n in range(1, 197) if tokens("student", str(n)) != [str(n)]] == []


def test_the_student_starts_from_the_tokenizer_it_was_made_with():
    assert (FOLDER / "student" / "tokenizer.json").read_bytes() == (FOLDER / "tiny" / "tokenizer.json").read_bytes()
