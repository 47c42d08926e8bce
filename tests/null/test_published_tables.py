"""The published tables say what the raw figures say."""

import pytest

from benchmarks.tables import PAGES, rebuilt


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_tables_are_made_from_the_raw_figures(page) -> None:
    text = page.read_text()
    assert "<!-- table " in text
    assert rebuilt(text) == text
