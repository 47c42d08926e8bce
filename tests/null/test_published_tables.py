"""The published tables and pictures say what the raw figures say."""

import json

import jsonschema
import pytest
from click.testing import CliRunner

from benchmarks import figures
from benchmarks.tables import PAGES, RESULTS, ROOT, TABLES, rebuilt

SCHEMA = ROOT / "hios_tvm" / "schemas" / "comparison.schema.json"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_tables_are_made_from_the_raw_figures(page) -> None:
    text = page.read_text()
    assert "<!-- table " in text
    assert rebuilt(text) == text


def test_pictures_are_drawn_from_the_raw_figures() -> None:
    assert {"study_gpus.png", "study_ratio.png"} <= set(figures.published())
    assert [name for name in figures.published() if figures.is_stale(name)] == []


def test_a_picture_of_other_figures_is_stale_and_drawn_anew(tmp_path, monkeypatch) -> None:
    results, images = tmp_path / "results", tmp_path / "images"
    results.mkdir()
    images.mkdir()
    text = (RESULTS / "simulate_study.csv").read_text()
    (results / "simulate_study.csv").write_text(text)
    (images / "study_gpus.png").write_bytes((figures.IMAGES / "study_gpus.png").read_bytes())
    monkeypatch.setattr(figures, "RESULTS", results)
    monkeypatch.setattr(figures, "IMAGES", images)
    only = {"study_gpus.png": figures.PICTURES["study_gpus.png"]}
    monkeypatch.setattr(figures, "PICTURES", only)
    assert not figures.is_stale("study_gpus.png")
    (results / "simulate_study.csv").write_text(text.replace("1.0,0.0,409283", "1.1,0.0,409283"))
    checked = CliRunner().invoke(figures.main, ["--check"])
    assert checked.exit_code == 1
    assert "study_gpus.png is stale" in checked.output
    assert CliRunner().invoke(figures.main, []).exit_code == 0
    assert not figures.is_stale("study_gpus.png")


def test_every_result_is_explained() -> None:
    page = (RESULTS / "README.md").read_text()
    for path in RESULTS.iterdir():
        name = f"{path.name}/" if path.is_dir() else path.name
        assert path.name == "README.md" or f"`{name}`" in page, path.name


def test_every_table_names_a_result_or_is_not_used() -> None:
    used = "".join(page.read_text() for page in PAGES)
    for name, (source, _) in TABLES.items():
        assert (RESULTS / source).exists() or f"<!-- table {name} -->" not in used


@pytest.mark.parametrize("path", sorted(RESULTS.glob("compare_*.json")), ids=lambda p: p.name)
def test_published_comparisons_validate(path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_bytes()))
    networks = json.loads(path.read_bytes())["networks"]
    assert networks
    for network in networks:
        validator.validate(network)
