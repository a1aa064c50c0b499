"""The lengths that a plan assumes are those that training will see."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from atlas.datasets.base import Example, Splits
from atlas.job import JobSpec
from atlas.lengths import lengths_of

QUICKSTART = Path(__file__).parents[1] / "specs" / "quickstart"


def job(student: Path) -> JobSpec:
    return JobSpec.model_validate(
        {"name": "a", "student": {"model": str(student)}, "method": {"type": "sft"}, "training": {"max_steps": 1}}
        | {"dataset": {"type": "arithmetic", "size": 200, "dev_size": 8, "test_size": 8}}
    )


def splits(*texts: tuple[str, str | None]) -> Splits:
    examples = [
        Example(str(i), str(i), ({"role": "user", "content": text},), "1", solution)
        for i, (text, solution) in enumerate(texts)
    ]
    return Splits(examples, [], [])


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A tokenizer with one token a word."""
    words = Tokenizer(models.WordLevel({"?": 0, "<user>": 1, "<bos>": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_prompts_and_solutions_are_counted_with_eos(student: Path) -> None:
    found = lengths_of(job(student), splits(("one two", "three"), ("one two three four", "five six")))
    assert found is not None
    assert (found.prompt, found.longest_prompt, found.solution, found.longest_row) == (3, 4, 2.5, 7)


def test_the_chat_template_counts_wherever_it_is(student: Path) -> None:
    template = "{{ bos_token }} {% for m in messages %}<user> {{ m.content }}{% endfor %}"
    config = {"bos_token": {"content": "<bos>"}, "chat_template": template}
    (student / "tokenizer_config.json").write_text(json.dumps(config))
    found = lengths_of(job(student), splits(("one two", None)))
    assert found is not None and found.prompt == 4 and found.solution == 0
    (student / "chat_template.jinja").write_text("{{ messages[0].content }} and more words")
    found = lengths_of(job(student), splits(("one two", None)))
    assert found is not None and found.prompt == 5


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{% generation %}", "{{ 1 / messages }}"])
def test_a_template_that_cannot_be_rendered_leaves_the_contents(student: Path, template: str) -> None:
    (student / "chat_template.jinja").write_text(template)
    found = lengths_of(job(student), splits(("one two", None)))
    assert found is not None and found.prompt == 2


def test_nothing_is_known_without_data_or_tokenizer(tmp_path: Path, student: Path) -> None:
    assert lengths_of(job(student), None) is None
    assert lengths_of(job(tmp_path / "nowhere"), splits(("a", None))) is None
    (student / "tokenizer.json").write_text("{")
    assert lengths_of(job(student), splits(("a", None))) is None


def test_they_are_those_of_training() -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from atlas.training.prompts import encode_prompts, encode_solution, render_prompt

    spec = job(QUICKSTART / "student")
    data = spec.dataset.load()
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.student.model)
    prompts = [
        len(row) for row in encode_prompts(tokenizer, [render_prompt(tokenizer, e.messages) for e in data.train])
    ]
    solutions = [len(encode_solution(tokenizer, example)) for example in data.train]
    found = lengths_of(spec, data)
    assert found is not None and len(prompts) < 256, "all of them are sampled"
    assert found.prompt == sum(prompts) / len(prompts) and found.longest_prompt == max(prompts)
    assert found.solution == sum(solutions) / len(solutions)
    assert found.longest_row == max(map(sum, zip(prompts, solutions, strict=True)))
