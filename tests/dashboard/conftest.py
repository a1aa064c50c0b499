"""Pages, run as Streamlit runs them but without a browser, over a store that the real ingest made (`lab`)."""

import sys

import pytest
from streamlit.testing.v1 import AppTest


@pytest.fixture(autouse=True)
def _main(monkeypatch):
    """AppTest puts the page in the place of `__main__`, which a process that is spawned later would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def show(lab, monkeypatch):
    """`show("compare", run=[...])`: the page as a visitor of that address sees it. Raises what the page raised."""
    monkeypatch.setenv("ATLAS_HOME", str(lab.store.home))

    def shown(page, /, **parameters):
        test = AppTest.from_string(f"from dashboard.pages.{page} import page\npage()\n", default_timeout=30)
        for name, value in parameters.items():
            test.query_params[name] = value
        test.run()
        assert not test.exception, test.exception
        return test

    return shown
