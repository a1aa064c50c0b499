import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from atlas.datasets import Gsm8k
from atlas.datasets.splits import normalise
from atlas.errors import SpecError
from atlas.grading import parses


def row(n: int) -> dict[str, str]:
    answer = f"Twice is {n}*2=<<{n}*2={2 * n}>>{2 * n}.\nWith cents: $<<1+0.5=1.5>>1.5\n#### -{n},000 "
    return {"question": f"Q{n}", "answer": answer}


def folder(write, train=range(10), test=range(100, 104)) -> Path:
    write("gsm8k/train.jsonl", map(row, train))
    return Path(write("gsm8k/test.jsonl", map(row, test))).parent


def test_annotations_go_and_the_answer_loses_its_commas(write) -> None:
    (example,) = Gsm8k(path=str(folder(write)), dev_size=0, test_size=1).load().test
    n = example.messages[0]["content"][1:]
    assert example.answer == f"-{n}000"
    assert example.solution == f"Twice is {n}*2={2 * int(n)}.\nWith cents: $1.5\n#### -{n},000"


def test_test_comes_from_the_test_file_and_dev_from_the_train_file(write) -> None:
    splits = Gsm8k(path=str(folder(write)), dev_size=3, test_size=2).load()
    asked = [[int(example.group[1:]) for example in part] for part in (splits.train, splits.dev, splits.test)]
    assert [len(part) for part in asked] == [7, 3, 2]
    assert set(asked[0] + asked[1]) == set(range(10))
    assert set(asked[2]) < set(range(100, 104))


def test_the_hub_layout_in_parquet_gives_the_same_splits(write, tmp_path: Path) -> None:
    local = folder(write)
    main = tmp_path / "hub" / "main"
    main.mkdir(parents=True)
    shutil.copytree(main, tmp_path / "hub" / "socratic")
    for part, numbers in (
        ("train-00000-of-00002", range(6)),
        ("train-00001-of-00002", range(6, 10)),
        ("test-0", range(100, 104)),
    ):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row(n) for n in numbers]), main / f"{part}.parquet")
    settings = {"dev_size": 3, "test_size": 2}
    assert Gsm8k(path=str(main.parent), **settings).load() == Gsm8k(path=str(local), **settings).load()


def test_a_file_or_a_directory_without_a_test_file_is_refused(write) -> None:
    local = folder(write)
    with pytest.raises(SpecError, match="is a file; expected the directory"):
        Gsm8k(path=str(local / "train.jsonl")).check()
    (local / "test.jsonl").unlink()
    with pytest.raises(
        SpecError, match=r"expected one test file, such as test\.jsonl; the directory holds: train\.jsonl"
    ):
        Gsm8k(path=str(local)).check()


def test_a_row_without_the_mark_is_refused_with_file_and_row(write) -> None:
    local = folder(write)
    write("gsm8k/test.jsonl", [row(1), {"question": "q", "answer": "five"}])
    with pytest.raises(SpecError, match=r"test\.jsonl: row 1: answer: expected '#### X' at its end, got 'five'"):
        Gsm8k(path=str(local)).check()


def test_more_test_problems_than_the_official_ones_are_refused(write) -> None:
    with pytest.raises(SpecError, match=r"official test split has 4 .* test_size of at most 4"):
        Gsm8k(path=str(folder(write)), dev_size=0, test_size=5).check()


@pytest.mark.real
def test_the_whole_of_gsm8k_holds_the_contract(shared: Path) -> None:
    dataset = Gsm8k(path=str(shared / "data" / "gsm8k"), dev_size=200, test_size=1319)
    splits = dataset.load()
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (7273, 200, 1319)
    held_out = {normalise(example.group) for example in (*splits.dev, *splits.test)}
    assert len(held_out) == 1519
    assert not held_out & {normalise(example.group) for example in splits.train}
    for example in (*splits.train, *splits.dev, *splits.test):
        assert parses(example.answer)
        assert "<<" not in example.solution and example.solution.splitlines()[-1].startswith("#### ")
        assert example.solution not in example.messages[-1]["content"]
        assert dataset.score(example, example.solution) == 1.0
