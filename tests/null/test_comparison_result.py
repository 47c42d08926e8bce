"""The JSON of comparisons is what its published schema says."""

import json
from pathlib import Path

import jsonschema
import pytest

from benchmarks.compare import means
from hios.errors import InvalidOption
from hios.ir.serial import encode_json
from hios_tvm.comparison_result import (
    ComparisonResult,
    EngineRow,
    HostFacts,
    Verdict,
    json_schema,
)
from hios_tvm.engines.roster import ROSTER, choose
from hios_tvm.report.comparison_table import comparison_table, facts, markdown, verdict_lines
from hios_tvm.sweep import SweepResult

SCHEMAS = Path(__file__).parents[2] / "hios_tvm" / "schemas"
KINDS = {
    "comparison": (ComparisonResult, "hios compare --json"),
    "sweep": (SweepResult, "hios compare --sweep --json"),
}


def row(key: str, family: str, median_us: float | None, **more: object) -> EngineRow:
    times = {} if median_us is None else {"p10_us": 1.0, "p90_us": 3.0, "p99_us": 4.0}
    speed = {} if median_us is None else {"speedup": 1.0, "speedup_low": 0.9, "speedup_high": 1.1}
    status = "absent" if median_us is None else "measured"
    fields = {"status": status, "median_us": median_us, "relative_error": 0.0, "tolerance": 1e-3}
    fields |= times | speed | more
    return EngineRow(key, family, f"engine {key}", "fp32", "1 thread", **fields)  # type: ignore[arg-type]


def result(model: str = "m", ours_us: float = 2.0) -> ComparisonResult:
    return ComparisonResult(
        model=model,
        operators=3,
        devices=("cpu:0", "cpu:1"),
        streams=1,
        inputs=(),
        seed=0,
        host=HostFacts("a CPU", (0, 1), "Linux x86_64", "3.11"),
        date="2026-11-26",
        command="hios compare m",
        baseline="build",
        reference="ort-1",
        energy_source=None,
        rows=(
            row("build", "hios", ours_us),
            row("ort-parallel", "ort", 8.0),
            row("ort-1", "ort", 4.0),
            row("torch-eager-1", "torch", None, remedy="torch is not installed"),
            row("openvino-1", "openvino", 1.0, status="differs", relative_error=None),
        ),
        verdicts=(Verdict("build", "ort-1", 2.0, 1.5, 2.5),),
    )


@pytest.mark.parametrize("name", KINDS)
def test_the_published_schema_is_that_of_the_classes(name: str, updates_golden: bool) -> None:
    path = SCHEMAS / f"{name}.schema.json"
    made = json_schema(*KINDS[name])
    if updates_golden:
        path.write_bytes(made)
    assert path.read_bytes() == made
    jsonschema.Draft202012Validator.check_schema(json.loads(made))


def test_a_result_validates_and_a_spoilt_one_does_not() -> None:
    schema = json.loads((SCHEMAS / "comparison.schema.json").read_bytes())
    validator = jsonschema.Draft202012Validator(schema)
    told = json.loads(encode_json(result()))
    validator.validate(told)
    told["rows"][0]["status"] = "guessed"
    with pytest.raises(jsonschema.ValidationError, match="guessed"):
        validator.validate(told)


def test_tables_tell_times_absences_and_wrong_answers() -> None:
    text = markdown(result())
    assert "| engine build | 2.00 µs | 1.00–3.00 µs | 4.00 µs |" in text
    assert "not here: engine torch-eager-1: torch is not installed" in text
    assert "WRONG: engine openvino-1 differs from engine ort-1 by ∞" in text
    assert "$ hios compare m" in text
    assert comparison_table(result()).row_count == 4
    assert verdict_lines(result()) == ["engine build is 2.00× (1.50–2.50) as fast as engine ort-1"]
    assert any("neither RAPL nor NVML" in line for line in facts(result()))


def test_means_are_geometric_and_name_the_worst_network() -> None:
    parallel, best = means([result("a", 2.0), result("b", 0.5)])
    assert (parallel.geometric, parallel.worst) == (pytest.approx(8.0), 4.0)
    assert (best.geometric, best.worst, best.worst_model) == (pytest.approx(4.0), 2.0, "a")


def test_every_engine_of_the_roster_has_a_name_of_its_own() -> None:
    keys = [contender.key for contender in ROSTER]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {c.family for c in ROSTER}
    assert {c.key for c in choose([])} == set(keys)
    assert [c.key for c in choose(["tensorrt", "-tensorrt-fp16"])] == [
        "tensorrt-fp32",
        "tensorrt-tf32",
    ]


@pytest.mark.parametrize("names", [["nobody"], ["ort", "-ort"], ["-nobody"]])
def test_an_unknown_engine_is_named(names: list[str]) -> None:
    with pytest.raises(InvalidOption, match=r"no engine 'nobody'|leaves none"):
        choose(names)
