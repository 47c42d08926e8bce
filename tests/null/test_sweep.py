"""Sweeps: their points, what each stands for, and going on after a stop."""

from pathlib import Path

import pytest

from hios.errors import InvalidOption, StorageError
from hios_tvm.comparison_result import ComparisonResult, HostFacts
from hios_tvm.sweep import (
    Axis,
    Point,
    Setting,
    SpecialisationRow,
    SweepPoint,
    parse_axis,
    points_of,
    run_sweep,
    setting_at,
)

BASE = Setting("zoo:squeezenet", {}, None, None)
POINTS = points_of([Axis("size", (64, 96)), Axis("batch", (1, 2))])


def done_at(point: Point) -> SweepPoint:
    host = HostFacts("cpu", (0,), "Linux", "3.11")
    result = ComparisonResult(
        "m", 1, ("cpu:0",), 1, (), 0, host, "2026-11-26", "", "a", "a", None, ()
    )
    return SweepPoint(dict(point), result)


@pytest.mark.parametrize("text", ["size", "size=", "size=1,x", "depth=1", "batch=0", "size=8,8"])
def test_a_malformed_axis_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="--sweep"):
        parse_axis(text)


def test_points_are_the_product_of_the_axes() -> None:
    assert [dict(p) for p in POINTS] == [
        {"size": 64, "batch": 1},
        {"size": 64, "batch": 2},
        {"size": 96, "batch": 1},
        {"size": 96, "batch": 2},
    ]
    with pytest.raises(InvalidOption, match="each axis once"):
        points_of([Axis("size", (1,)), Axis("size", (2,))])


@pytest.mark.parametrize(
    ("source", "point", "expected"),
    [
        ("zoo:squeezenet", (("size", 64),), "zoo:squeezenet@64x1"),
        ("zoo:squeezenet@64", (("batch", 4),), "zoo:squeezenet@64x4"),
        ("zoo:squeezenet", (("batch", 4),), "zoo:squeezenet@224x4"),
        ("zoo:squeezenet@64x2", (("devices", 2),), "zoo:squeezenet@64x2"),
    ],
)
def test_a_point_names_the_network_of_the_zoo(source: str, point: Point, expected: str) -> None:
    assert setting_at(Setting(source, {}, None, None), point).source == expected


def test_devices_and_streams_take_the_place_of_those_given() -> None:
    found = setting_at(Setting("m.onnx", {}, "cpu:0", 3), (("devices", 2), ("streams", 1)))
    assert (found.devices, found.streams, found.source) == (2, 1, "m.onnx")


@pytest.mark.parametrize("source", ["light:squeezenet", "zoo:squeezenet@128", "m.hios"])
def test_a_fixed_size_is_not_swept(source: str) -> None:
    with pytest.raises(InvalidOption):
        setting_at(Setting(source, {}, None, None), (("size", 64),))


def test_a_stopped_sweep_loses_the_running_point_only(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    ran: list[Point] = []

    def stops_at_the_third(point: Point) -> SweepPoint:
        ran.append(point)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return done_at(point)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(POINTS, {"model": "m"}, state, stops_at_the_third)
    found = run_sweep(POINTS, {"model": "m"}, state, stops_at_the_third)
    assert ran == [POINTS[0], POINTS[1], POINTS[2], POINTS[2], POINTS[3]]
    assert [p.point for p in found.points] == [dict(p) for p in POINTS]
    again = run_sweep(POINTS, {"model": "m"}, state, stops_at_the_third)
    assert len(ran) == 5
    assert again.points == found.points


def test_schedules_elsewhere_go_on_after_a_stop_too(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    ran: list[Point] = []

    def elsewhere(points: object, here: Point) -> list[SpecialisationRow]:
        ran.append(here)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return [SpecialisationRow(dict(p), dict(here), "hios-lp", 1.0) for p in POINTS]

    with pytest.raises(KeyboardInterrupt):
        run_sweep(POINTS, {}, state, done_at, specialise=elsewhere)
    found = run_sweep(POINTS, {}, state, done_at, specialise=elsewhere)
    assert ran == [POINTS[0], POINTS[1], *POINTS[1:]]
    assert len(found.specialisation) == len(POINTS) ** 2


def test_the_state_of_another_sweep_is_not_continued(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    run_sweep(POINTS[:1], {"engines": "ort"}, state, done_at)
    with pytest.raises(InvalidOption, match="engines 'ort', not 'hios'"):
        run_sweep(POINTS, {"engines": "hios"}, state, done_at)
    state.write_text("{")
    with pytest.raises(StorageError):
        run_sweep(POINTS, {"engines": "ort"}, state, done_at)
