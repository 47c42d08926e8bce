"""What the benchmark of kernels makes of its figures."""

import pytest

from benchmarks.kernels import geometric_means, missed_targets
from benchmarks.tables import kernels


def row(name, *ratios, over_default=50.0):
    def figures(time_us):
        return {"median_us": time_us, "p10_us": time_us, "p90_us": time_us, "samples": 9}

    return {
        "model": name,
        "over_default": over_default,
        "threads": [
            {
                "threads": count,
                "ours": figures(1000 * ratio),
                "onnxruntime": figures(1000.0),
                "ratio": ratio,
                "ratio_low": ratio - 0.05,
                "ratio_high": ratio + 0.05,
            }
            for count, ratio in enumerate(ratios, 1)
        ],
    }


def test_means_are_geometric_and_per_number_of_threads() -> None:
    means = geometric_means([row("a", 0.5, 0.9), row("b", 2.0, 0.4)])
    assert means == pytest.approx({"1 thread": 1.0, "2 threads": 0.6})


def test_a_missed_target_names_its_network() -> None:
    assert missed_targets([row("a", 0.5, 0.9), row("b", 1.2, 1.1)]) == []
    missed = missed_targets([row("a", 0.5, 0.9), row("b", 1.0, 1.4), row("c", 0.9, 0.5)])
    assert len(missed) == 1
    assert missed[0].startswith("b takes 1.40×")
    assert "geometric mean on 1 thread is 1.10×" in missed_targets([row("a", 1.1, 0.9)])[0]
    assert "is 7× as fast" in missed_targets([row("a", 0.9, over_default=7.0)])[0]


def test_table_has_a_row_a_network_and_the_means() -> None:
    rows = [row("a", 0.5, 0.9), row("b", 2.0, 0.4)]
    where = {"machine": "a processor, 2 cores", "date": "2026-11-26"}
    result = {"rows": rows, "geometric_means": geometric_means(rows), **where}
    *lines, empty, caption = kernels(result).splitlines()
    assert len(lines) == 2 + 2 + 1
    assert len({line.count("|") for line in lines}) == 1
    assert (empty, caption) == ("", "a processor, 2 cores, 2026-11-26.")
    assert "**0.50** (0.45–0.55)" in lines[2]
    assert "50× slower" in lines[2]
    assert lines[-1].startswith("| geometric mean |")
