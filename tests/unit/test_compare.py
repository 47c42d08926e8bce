"""`hios compare` on a small network: real engines, one that fails and one that is wrong."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from command_line import runner, small_network

import hios_tvm
from benchmarks import compare
from benchmarks.figures import suite_bars
from benchmarks.tables import compared
from hios.errors import ExecutionError, InvalidOption
from hios.ir import DeviceId, Placement, Schedule
from hios.ir.presets import cpu_machine
from hios_tvm.contest import ContestOptions, hold_contest, relative_error
from hios_tvm.engines.protocol import Contender
from hios_tvm.engines.roster import ROSTER, choose
from hios_tvm.engines.subject import Subject
from hios_tvm.specialisation import run_elsewhere
from hios_tvm.sweep import SweepPoint

SCHEMAS = Path(hios_tvm.__file__).parent / "schemas"
QUICK = ContestOptions(repeat=3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("compare") / "small.onnx"
    onnx.save(small_network(), found)
    return found


@pytest.fixture(scope="module")
def subject(path):
    """The network, compiled once."""
    return Subject(str(path), cpu_machine(["cpu:0", "cpu:1"]))


@pytest.fixture
def hios(capfd):
    return runner(capfd)


def schema(name):
    validator = jsonschema.Draft202012Validator
    return validator(json.loads((SCHEMAS / f"{name}.schema.json").read_bytes()))


@pytest.fixture(scope="module")
def everybody(subject):
    """All engines that are here, TVM's slow kernels too: the network is small."""
    return hold_contest(subject, ROSTER, QUICK, command="hios compare small.onnx")


def test_everybody_gives_the_same_answer(everybody):
    measured = {row.key: row for row in everybody.rows if row.status == "measured"}
    assert {"sequential", "ios", "hios-lp", "hios-mr", "auto", "wide", "build"} <= measured.keys()
    assert {"tvm-ours", "tvm-ours-all", "tvm-default", "ort-1", "ort-parallel"} <= measured.keys()
    assert not [row for row in everybody.rows if row.status == "differs"]
    assert everybody.reference == "ort-1"
    for row in measured.values():
        assert row.relative_error <= 1e-5
        assert row.p10_us <= row.median_us <= row.p90_us <= row.p99_us
        assert row.runs == len(row.samples_us) >= 3
        assert row.speedup_low <= row.speedup <= row.speedup_high


def test_who_is_not_here_says_what_would_help(everybody):
    absent = {row.key: row.remedy for row in everybody.rows if row.status == "absent"}
    assert "make relay-env" in absent["tvm-graph"]
    assert len(everybody.rows) == len(ROSTER)
    for key in absent:
        assert absent[key].partition(":")[0] != "failed", absent[key]
    if "tensorrt-fp32" in absent:
        assert "NVIDIA" in absent["tensorrt-fp32"]


def test_ours_is_judged_against_each_rival_that_ran(everybody):
    rivals = {verdict.rival for verdict in everybody.verdicts}
    assert {"ort-parallel", "tvm-default"} <= rivals
    assert all(verdict.ours == "build" for verdict in everybody.verdicts)
    parallel = next(v for v in everybody.verdicts if v.rival == "ort-parallel")
    medians = everybody.row("ort-parallel").median_us / everybody.row("build").median_us
    assert parallel.ratio == pytest.approx(medians, rel=1e-3)


class _Wrong:
    name = "an engine that rounds"

    def __init__(self, subject):
        self._like = choose(["ort-1"])[0].open(subject)
        self.is_closed = False

    def run(self, inputs):
        """Return what is right to one digit."""
        return [np.round(out, 1) for out in self._like.run(inputs)]

    def close(self):
        """Remember it."""
        self._like.close()
        self.is_closed = True


def stranger(key, open_engine):
    return Contender(key, "strange", key, "", lambda _subject: None, open_engine)


def test_a_wrong_answer_is_called_wrong_and_a_failure_is_a_row(subject):
    def fails(_subject):
        raise KeyError("no such symbol")

    opened = []

    def opens(subject):
        opened.append(_Wrong(subject))
        return opened[-1]

    contenders = [*choose(["ort-1"]), stranger("wrong", opens), stranger("fails", fails)]
    result = hold_contest(subject, contenders, QUICK)
    right, wrong, failed = result.rows
    assert (right.status, wrong.status, failed.status) == ("measured", "differs", "absent")
    assert wrong.relative_error > wrong.tolerance
    assert failed.remedy == "failed: 'no such symbol'"
    assert opened[0].is_closed
    with pytest.raises(ExecutionError, match="no engine can run"):
        hold_contest(subject, [stranger("fails", fails)], QUICK)


def test_other_shapes_and_nan_are_infinitely_wrong():
    one = np.ones((1, 3), np.float32)
    assert relative_error([one], [one]) == 0
    assert relative_error([one], [one[0]]) == float("inf")
    assert relative_error([one * np.nan], [one]) == float("inf")
    assert relative_error([one * 0], [one * 0]) == 0


def test_a_baseline_must_take_part(subject):
    with pytest.raises(InvalidOption, match="takes no part"):
        hold_contest(subject, choose(["ort-1"]), ContestOptions(repeat=1, baseline="auto"))
    absent = next(c for c in ROSTER if c.absence(subject) is not None)
    both = [*choose(["ort-1"]), absent]
    with pytest.raises(InvalidOption, match="cannot run"):
        hold_contest(subject, both, ContestOptions(repeat=1, baseline=absent.key))


def test_the_verb_writes_json_markdown_and_a_picture(hios, path, tmp_path):
    out, page, picture = (tmp_path / name for name in ("c.json", "c.md", "c.png"))
    files = ("--out", out, "--markdown", page, "--png", picture)
    chosen = ("--engines", "sequential,ort-1,tensorrt", "--budget", "0.2s", "--devices", "2")
    code, text, errors = hios("compare", path, *chosen, "--baseline", "ort-1", *files)
    assert (code, errors) == (0, "")
    assert "not here: TensorRT (fp32); TensorRT (tf32); TensorRT (fp16):" in text
    told = json.loads(out.read_bytes())
    schema("comparison").validate(told)
    assert told["baseline"] == "ort-1"
    assert told["rows"][0]["runs"] >= 6
    assert "| ONNX Runtime" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_sweep_goes_on_where_it_stopped(hios, path, tmp_path):
    out, picture = tmp_path / "s.json", tmp_path / "s.png"
    how = ("--engines", "sequential,ort-1", "--repeat", 3, "--json", "--out", out, "--png", picture)
    axes = ("--sweep", "devices=1,2", "--specialise", "hios-lp")
    code, text, errors = hios("compare", path, *axes, *how)
    assert (code, errors) == (0, "")
    told = json.loads(text)
    schema("sweep").validate(told)
    assert told == json.loads(out.read_bytes())
    assert [done["point"] for done in told["points"]] == [{"devices": 1}, {"devices": 2}]
    cells = told["specialisation"]
    assert len(cells) == 4
    own = [cell for cell in cells if cell["decided_for"] == cell["run_at"]]
    assert [cell["slowdown"] for cell in own] == [1.0, 1.0]
    assert picture.stat().st_size > 1000
    # All points are in the state file: nothing runs again, and the figures are the same.
    assert hios("compare", path, *axes, *how)[1] == text
    code, _, errors = hios("compare", path, *axes, *how, "--seed", 3)
    assert code == 2
    assert "seed '0', not '3'" in errors


def test_a_schedule_that_does_not_fit_is_a_cell_with_a_reason(everybody, subject):
    order = subject.compiled.graph.topological_order()
    here, there, other = ((("devices", n),) for n in (2, 3, 4))
    placed = [
        Schedule("here", tuple(Placement(op, DeviceId(0)) for op in order)),
        Schedule("there", tuple(Placement(op, DeviceId(2)) for op in order)),
    ]
    points = [
        SweepPoint(dict(point), everybody, schedule.to_json().decode())
        for point, schedule in zip((here, there), placed, strict=True)
    ]
    grown = replace(everybody, operators=7)
    points.append(SweepPoint(dict(other), grown, points[0].schedule))
    own, misplaced, differs = run_elsewhere(subject, points, here, repeat=1)
    assert own.slowdown == 1.0
    assert own.median_us > 0
    assert misplaced.median_us is None
    assert "device" in misplaced.reason
    assert differs.reason == "7 operators there, 6 here"


def test_open_dimensions_are_swept(hios, tmp_path):
    open_batch = tmp_path / "open.onnx"
    onnx.save(small_network("n"), open_batch)
    how = ("--engines", "sequential,ort-1", "--repeat", 1, "--json")
    told = json.loads(hios("compare", open_batch, "--sweep", "batch=1,3", *how)[1])
    shapes = [done["result"]["inputs"][0]["shape"] for done in told["points"]]
    assert shapes == [[1, 3, 16, 16], [3, 3, 16, 16]]


def test_a_suite_goes_on_and_becomes_a_table_and_a_picture(path, tmp_path, monkeypatch):
    other = tmp_path / "other.onnx"
    onnx.save(small_network(), other)
    out = tmp_path / "suite.json"
    arguments = ["--models", f"{path},{other}", "--engines", "build,ort-1,ort-parallel"]
    arguments += ["--budget", "0.1", "--out", str(out)]
    held = []

    def stops_at_the_second(subject, *rest, **more):
        held.append(subject.name)
        if len(held) == 2:
            raise KeyboardInterrupt
        return hold_contest(subject, *rest, **more)

    monkeypatch.setattr(compare, "hold_contest", stops_at_the_second)
    monkeypatch.setattr("sys.argv", ["compare", *arguments])
    assert CliRunner().invoke(compare.main, arguments).exit_code != 0
    done = CliRunner().invoke(compare.main, arguments)
    assert done.exit_code == 0, done.output
    assert held == [str(path), str(other), str(other)]
    assert "build against ort-parallel" in done.output
    told = json.loads(out.read_bytes())
    for network in told["networks"]:
        schema("comparison").validate(network)
    assert [mean["rival"] for mean in told["means"]] == ["ort-parallel", "ort, best mode"]
    table = compared(out)
    assert f"| {other} | " in table
    assert "geometric mean" in table
    suite_bars(out, tmp_path / "bars.png", {"Source": "here"})
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("small.json",), "graph file"),
        (("light:squeezenet", "--engines", "nobody"), "no engine 'nobody'"),
        (("light:squeezenet", "--budget", "soon"), "is no duration"),
        (("light:squeezenet", "--devices", "99999999"), "at most"),
        (("light:squeezenet", "--sweep", "size=64"), "needs zoo:NAME"),
        (("light:squeezenet", "--sweep", "width=1"), "axes are size, batch"),
        (("light:squeezenet", "--state", "x"), "belong to a sweep"),
    ],
)
def test_mistakes_are_one_line(hios, arguments, message):
    code, out, errors = hios("compare", *arguments)
    assert (code, out) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
