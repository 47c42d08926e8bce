"""What the documents say is true: links lead somewhere, examples run, verbs exist."""

import json
import re
from pathlib import Path

import pytest

from hios.graph_file import parse_graph_file
from hios.ir.presets import abstract_machine
from hios.schedulers import registry
from hios_tvm.cli.main import VERBS, cli, main

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist_and_their_options_too(path: Path) -> None:
    context = cli.make_context("hios", [], resilient_parsing=True)
    for block in blocks(path, "console"):
        for line in re.findall(r"^\$ hios (.*)", block, flags=re.MULTILINE):
            verb, *words = line.partition("#")[0].split()
            assert verb in VERBS, line
            command = cli.get_command(context, verb)
            assert command is not None
            known = {name for option in command.params for name in option.opts}
            given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert given <= known, line


def test_the_scheduler_of_the_document_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = blocks(ROOT / "docs" / "meaning-of-a-schedule.md", "json")[1:]
    (tmp_path / "graph.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    file = parse_graph_file(text)
    machine = abstract_machine(2)
    names = {"graph": file.graph, "machine": machine, "costs": file.costs(machine)}
    define, use, compare = blocks(ROOT / "docs" / "adding-a-scheduler.md", "python")
    for block in (define, use, compare):
        exec(block, names)
    assert names["decided"].scheduler == "round-robin"  # type: ignore[attr-defined]
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["schedule", "graph.json", "--scheduler", "round-robin", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scheduler"] == "round-robin"


def test_json_keys_of_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = (ROOT / "docs" / "meaning-of-a-schedule.md").read_text(encoding="utf-8")
    table = document.partition("## What `--json` prints")[2]
    keys = {
        key
        for row in re.findall(r"^\| (`.*?`) \|", table, flags=re.MULTILINE)
        for key in re.findall(r"`(\w+)`", row)
    }
    path = tmp_path / "graph.json"
    path.write_text('{"operators": [{"id": 0, "time_us": 1}], "edges": []}')
    assert main(["schedule", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert keys | {"operators"} == told.keys()
