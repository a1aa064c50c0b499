import errno

import datasets
import pytest

from atlas.datasets import Gsm8k, MetaMathQA
from atlas.errors import RunFailed, SpecError

METAMATH = [
    {"query": f"{n}?", "response": f"It is {n}. The answer is: {n}", "type": "GSM_AnsAug", "original_question": f"{n}"}
    for n in range(9)
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    """Replaces the network: `hub(outcome)` lets load_dataset return a table per split, or raise. Records the calls."""
    calls = []

    def stand_in(outcome):
        def load_dataset(name, config=None, split=None, revision=None):
            calls.append((name, config, split, revision))
            if isinstance(outcome, Exception):
                raise outcome
            return datasets.Dataset.from_list(outcome[split])

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return calls

    return stand_in


def test_metamathqa_comes_from_its_hub_repository(hub) -> None:
    calls = hub({"train": METAMATH})
    splits = MetaMathQA(revision="abc", dev_size=2, test_size=3).load()
    assert calls == [("meta-math/MetaMathQA", None, "train", "abc")]
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (4, 2, 3)


def test_hub_and_local_copy_give_the_same_splits(hub, write) -> None:
    hub({"train": METAMATH})
    settings = {"dev_size": 2, "test_size": 3}
    assert MetaMathQA(**settings).load() == MetaMathQA(path=write("a.jsonl", METAMATH), **settings).load()


def test_gsm8k_comes_from_its_main_configuration(hub) -> None:
    rows = [{"question": f"Q{n}", "answer": f"It is {n}\n#### {n}"} for n in range(9)]
    calls = hub({"train": rows[:5], "test": rows[5:]})
    splits = Gsm8k(dev_size=1, test_size=2).load()
    assert calls == [("openai/gsm8k", "main", "train", None), ("openai/gsm8k", "main", "test", None)]
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (4, 1, 2)


@pytest.mark.parametrize("dataset", [MetaMathQA(), Gsm8k()])
def test_check_leaves_the_network_alone(hub, dataset) -> None:
    calls = hub(AssertionError("the network was asked"))
    dataset.check()
    assert not calls


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("Couldn't reach 'meta-math/MetaMathQA' on the Hub (OfflineModeIsEnabled)"), "hub_unreachable"),
        (TimeoutError("timed out"), "hub_unreachable"),
        (datasets.exceptions.DatasetNotFoundError("gated"), "hub_unreachable"),
        (datasets.exceptions.DatasetGenerationError("torn download"), "hub_unreachable"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
    ],
)
def test_a_failed_download_has_a_reason_and_a_next_step(hub, error: Exception, reason: str) -> None:
    hub(error)
    with pytest.raises(RunFailed) as caught:
        MetaMathQA().load()
    assert caught.value.reason == reason
    expected = "HF_HOME" if reason == "disk_full" else "HF_HUB_OFFLINE"
    assert "meta-math/MetaMathQA" in str(caught.value) and expected in str(caught.value)


def test_a_revision_that_is_not_there_is_the_specs_fault(hub) -> None:
    hub(datasets.exceptions.DatasetNotFoundError("Revision 'nope' doesn't exist"))
    with pytest.raises(SpecError, match=r"dataset\.revision: no revision 'nope' of meta-math/MetaMathQA"):
        MetaMathQA(revision="nope").load()


def test_the_real_library_says_that_the_hub_is_offline(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RunFailed) as caught:
        Gsm8k().load()
    assert caught.value.reason == "hub_unreachable"
