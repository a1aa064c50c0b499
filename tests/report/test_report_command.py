"""`atlas report`, with a comparison made by hand in place of the collected one."""

import pytest
from typer.testing import CliRunner

from atlas.cli import app
from atlas.comparison import collect
from atlas.errors import UsageError
from atlas.store import Store


@pytest.fixture
def atlas(rich, samples, tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Store, "samples", lambda store, run_id, step: samples(run_id, step))
    asked = []
    monkeypatch.setattr(collect, "collect", lambda store, references, force: asked.append((references, force)) or rich)

    def atlas(*arguments):
        result = CliRunner().invoke(app, ["report", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result, asked

    return atlas


def test_a_report_is_named_after_its_experiment_and_says_where_it_is(atlas, tmp_path):
    result, asked = atlas("case-study")
    assert result.exit_code == 0
    assert "case-study.html" in result.stderr and result.stdout == ""
    assert "<h1>case-study</h1>" in (tmp_path / "case-study.html").read_text()
    assert asked == [(["case-study"], False)]


def test_the_format_is_that_of_the_suffix_and_force_is_passed_on(atlas, tmp_path):
    _, asked = atlas("run-1", "run-2", "-o", "out.md", "--force")
    assert (tmp_path / "out.md").read_text().startswith("# case-study\n")
    assert asked == [(["run-1", "run-2"], True)]


def test_a_bad_name_is_refused_before_anything_is_read(atlas):
    with pytest.raises(UsageError, match=r"out\.pdf"):
        atlas("case-study", "-o", "out.pdf")
