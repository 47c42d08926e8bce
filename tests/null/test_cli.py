"""The command line on graph files: no TVM, no device."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hios.defaults import DEFAULT_SCHEDULER
from hios.ir import Schedule
from hios_tvm.cli.main import VERBS, main
from hios_tvm.cli.options import parse_shapes

DIAMOND: dict[str, Any] = {
    "name": "diamond",
    "operators": [
        {"id": 0, "time_us": 10.0, "utilization": 1.0},
        {"id": 1, "time_us": 20.0, "utilization": 1.0},
        {"id": 2, "time_us": 12.0, "utilization": 1.0},
        {"id": 3, "time_us": 5.0, "utilization": 1.0},
    ],
    "edges": [
        {"src": 0, "dst": 1, "transfer_us": 3.0},
        {"src": 0, "dst": 2, "transfer_us": 3.0},
        {"src": 1, "dst": 3, "transfer_us": 3.0},
        {"src": 2, "dst": 3, "transfer_us": 3.0},
    ],
}


@pytest.fixture
def graph(tmp_path: Path) -> str:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(DIAMOND))
    return str(path)


@pytest.fixture
def hios(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


class TestSchedule:
    def test_json_is_one_object(self, hios: Any, graph: str) -> None:
        arguments = ("--devices", 2, "--streams", 1, "--scheduler", "hios-lp", "--json")
        code, out, err = hios("schedule", graph, *arguments)
        assert (code, err) == (0, "")
        assert out.count("\n") == 1
        told = json.loads(out)
        assert (told["scheduler"], told["devices"], told["streams"]) == ("hios-lp", 2, 1)
        # Longest path 0-1-3 on one device (35); 2 fits beside it on the other: 3+12+3 < 20.
        assert told["makespan_us"] == told["lower_bound_us"] == 35.0
        assert told["sequential_us"] == 47.0
        assert told["gap"] == 0.0
        assert sorted(placement["op"] for placement in told["placements"]) == [0, 1, 2, 3]

    def test_table_tells_the_makespan(self, hios: Any, graph: str) -> None:
        code, out, _ = hios("schedule", graph, "--devices", 2, "--scheduler", "sequential")
        assert code == 0
        assert "47.00 µs predicted" in out
        assert "1.00×" in out

    def test_same_input_same_schedule(self, hios: Any, graph: str, tmp_path: Path) -> None:
        paths = [tmp_path / "a.json", tmp_path / "b.json"]
        for path in paths:
            code, _, _ = hios("schedule", graph, "--devices", 3, "--save-schedule", path)
            assert code == 0
        assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_saved_schedule_is_taken_again(self, hios: Any, graph: str, tmp_path: Path) -> None:
        path = tmp_path / "s.json"
        _, first, _ = hios("schedule", graph, "--save-schedule", path, "--json")
        code, second, _ = hios("simulate", graph, "--load-schedule", path, "--json")
        assert code == 0
        told, again = json.loads(first), json.loads(second)
        assert again["seconds"] == 0.0
        assert told["placements"] == again["placements"]
        assert told["makespan_us"] == again["makespan_us"]
        assert Schedule.from_json(path.read_bytes()).scheduler == DEFAULT_SCHEDULER

    def test_window_reaches_the_scheduler(self, hios: Any, graph: str) -> None:
        named = ("--scheduler", "hios-lp", "--streams", 2)
        code, out, _ = hios("schedule", graph, *named, "--window", 3, "--json")
        assert (code, json.loads(out)["streams"]) == (0, 2)
        code, out, err = hios("schedule", graph, "--scheduler", "sequential", "--window", 3)
        assert (code, out) == (2, "")
        assert "sequential" in err
        assert "window" in err

    def test_options_reach_the_scheduler(self, hios: Any, graph: str) -> None:
        few = ("schedule", graph, "--scheduler", "auto", "--option", "evaluations=100", "--json")
        code, out, _ = hios(*few)
        assert (code, json.loads(out)["scheduler"]) == (0, "auto")
        code, out, err = hios(*few, "--option", "magic=1")
        assert (code, out) == (2, "")
        assert "magic" in err
        code, _, err = hios(*few, "--option", "evaluations=2")
        assert (code, "twice" in err) == (2, True)
        code, _, err = hios("schedule", graph, "--option", "evaluations")
        assert (code, "NAME=VALUE" in err) == (2, True)
        code, _, err = hios("schedule", graph, "--scheduler", "heft", "--budget", 1)
        assert (code, "budget" in err) == (2, True)

    def test_preset_machine(self, hios: Any, graph: str) -> None:
        code, out, _ = hios("schedule", graph, "--machine", "4xV100-NVLink2", "--json")
        told = json.loads(out)
        assert (code, told["devices"], told["machine"]) == (0, 4, "4xV100-NVLink2")

    def test_list_names_every_scheduler(self, hios: Any) -> None:
        code, out, _ = hios("schedule", "--list", "--json")
        names = [row["name"] for row in json.loads(out)["schedulers"]]
        assert code == 0
        assert {"sequential", "heft", "hios-lp"} <= set(names)
        code, out, _ = hios("schedule", "--list")
        assert all(name in out for name in names)


class TestSimulate:
    def test_events_are_the_whole_timeline(self, hios: Any, graph: str) -> None:
        code, out, _ = hios("simulate", graph, "--devices", 2, "--json")
        events = json.loads(out)["events"]
        assert code == 0
        assert sum(event["kind"] == "operator" for event in events) == 4
        assert max(event["end_us"] for event in events) == 35.0

    def test_picture_and_trace(self, hios: Any, graph: str, tmp_path: Path) -> None:
        png, trace = tmp_path / "g.png", tmp_path / "g.trace.json"
        code, out, _ = hios("simulate", graph, "--png", png, "--trace", trace)
        assert code == 0
        assert png.read_bytes().startswith(b"\x89PNG")
        assert json.loads(trace.read_text())["traceEvents"]
        assert str(png) in out


class TestMistakes:
    """One line on standard error, exit code 2, nothing on standard output, nothing written."""

    def check(self, ran: tuple[int, str, str], *words: str) -> None:
        code, out, err = ran
        assert code == 2
        assert out == ""
        assert err.startswith("hios: error: ")
        assert err.count("\n") == 1
        for word in words:
            assert word in err

    def test_missing_file(self, hios: Any, tmp_path: Path) -> None:
        self.check(hios("schedule", tmp_path / "none.json"), "none.json")

    def test_a_folder_is_no_graph_file(self, hios: Any, tmp_path: Path) -> None:
        folder = tmp_path / "folder.json"
        folder.mkdir()
        self.check(hios("schedule", folder), "folder.json", "directory")

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\x01", '{"operators": 3}'])
    def test_no_graph_file(self, hios: Any, tmp_path: Path, text: str) -> None:
        path = tmp_path / "bad.json"
        path.write_text(text)
        self.check(hios("schedule", path), "bad.json")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"edges": [{"src": 0, "dst": 1}, {"src": 1, "dst": 0}]}, ("cycle", "0 -> 1")),
            ({"edges": [{"src": 0, "dst": 9}]}, ("no operator 9",)),
            ({"operators": [{"id": 0, "time_us": float("nan")}], "edges": []}, ("nan", "time_us")),
            ({"operators": [{"id": 0, "time_us": -1}], "edges": []}, ("-1", "negative")),
            ({"operators": [{"id": 0, "time_us": float("inf")}], "edges": []}, ("inf",)),
            ({"operators": [{"id": 0}], "edges": []}, ("time_us", "missing")),
            (
                {"edges": [{"src": 0, "dst": 1, "transfer_us": float("nan")}]},
                ("nan", "transfer_us"),
            ),
        ],
    )
    def test_wrong_graph(
        self, hios: Any, tmp_path: Path, change: dict[str, Any], words: tuple[str, ...]
    ) -> None:
        path = tmp_path / "bad.json"
        path.write_text(json.dumps(DIAMOND | change))
        self.check(hios("schedule", path, "--json"), *words)

    def test_unknown_scheduler(self, hios: Any, graph: str) -> None:
        self.check(hios("schedule", graph, "--scheduler", "magic"), "magic", "hios-lp", "heft")

    @pytest.mark.parametrize(
        "devices", ["0", "-1", "gpu", "cpu:0,tpu:1", "cpu:0,cuda:1", "cpu:0,cpu:0", "99999", ""]
    )
    def test_unknown_device(self, hios: Any, graph: str, devices: str) -> None:
        self.check(hios("schedule", graph, f"--devices={devices}"), devices.partition(",")[0])

    @pytest.mark.parametrize("machine", ["3xB9000-Wire", "2xA40", "none.json"])
    def test_unknown_machine(self, hios: Any, graph: str, machine: str) -> None:
        self.check(hios("schedule", graph, "--machine", machine), machine)

    def test_broken_machine_file(self, hios: Any, graph: str, tmp_path: Path) -> None:
        path = tmp_path / "m.json"
        path.write_text('{"name": "m", "devices": []}')
        self.check(hios("schedule", graph, "--machine", path), "no devices")

    def test_costs_of_a_graph_file(self, hios: Any, graph: str) -> None:
        self.check(hios("schedule", graph, "--costs", "profile"), "--costs profile")

    def test_schedule_of_another_graph(self, hios: Any, graph: str, tmp_path: Path) -> None:
        saved, other = tmp_path / "s.json", tmp_path / "other.json"
        assert hios("schedule", graph, "--save-schedule", saved)[0] == 0
        other.write_text(json.dumps({"operators": [{"id": 0, "time_us": 1}], "edges": []}))
        self.check(hios("schedule", other, "--load-schedule", saved), "operator")
        saved.write_text('{"scheduler": 3}')
        self.check(hios("schedule", graph, "--load-schedule", saved), "s.json")

    @pytest.mark.parametrize(
        "arguments",
        [
            ("nonsense",),
            ("schedule",),
            ("schedule", "--nonsense"),
            ("schedule", "g.json", "--streams", "0"),
            ("schedule", "g.json", "--window", "x"),
            ("simulate",),
        ],
    )
    def test_usage(self, hios: Any, arguments: tuple[str, ...]) -> None:
        self.check(hios(*arguments), "--help")

    def test_unwritable_results_leave_nothing(self, hios: Any, graph: str, tmp_path: Path) -> None:
        place = tmp_path / "no" / "folder"
        for verb, option in (
            ("schedule", "--save-schedule"),
            ("simulate", "--png"),
            ("simulate", "--trace"),
        ):
            self.check(hios(verb, graph, option, place / "x"), "cannot write")
        assert [path.name for path in tmp_path.iterdir()] == ["graph.json"]

    def test_a_full_disk_leaves_the_old_file(
        self, hios: Any, graph: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "s.json"
        target.write_text("old")

        def full(self: Path, data: bytes) -> int:
            with self.open("wb") as file:
                file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_bytes", full)
        ran = hios("schedule", graph, "--save-schedule", target)
        self.check(ran, "No space left on device", "s.json")
        assert target.read_text() == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.json", "s.json"]


class TestShapes:
    def test_names_may_hold_colons(self) -> None:
        assert parse_shapes(("a:b:1x2", "scalar:")) == {"a:b": (1, 2), "scalar": ()}

    @pytest.mark.parametrize("text", ["x", "x:1x", "x:1,2", ":1x2", "x:0x1", "x:-1", "x:１"])
    def test_malformed(self, text: str) -> None:
        with pytest.raises(ValueError, match="--shapes"):
            parse_shapes((text,))

    def test_twice(self) -> None:
        with pytest.raises(ValueError, match="twice"):
            parse_shapes(("x:1", "x:2"))


class TestProcess:
    """What only a process of its own shows: exit codes, pipes, signals."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "hios_tvm", *arguments]

    def test_help_of_every_verb_has_an_example(self, hios: Any) -> None:
        code, out, _ = hios("--help")
        assert code == 0
        for verb in VERBS:
            assert f"  {verb} " in out
            code, text, _ = hios(verb, "--help")
            assert code == 0
            assert "Example" in text
            assert f"hios {verb}" in text

    def test_no_arguments_show_the_help(self, hios: Any) -> None:
        code, out, err = hios()
        assert (code, err) == (0, "")
        assert "Usage: hios" in out

    def test_version(self, hios: Any) -> None:
        code, out, _ = hios("--version")
        assert code == 0
        assert out.startswith("hios, version ")

    def test_exit_code_reaches_the_shell(self) -> None:
        done = subprocess.run(
            self.command("schedule", "none.json"), capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr

    def test_a_reader_of_tables_that_has_gone(self, graph: str) -> None:
        command = [sys.executable, "-m", "hios_tvm", "schedule", graph, "--scheduler", "heft"]
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")

    def test_no_standard_output_and_a_narrow_locale(self, graph: str) -> None:
        command = f"{sys.executable} -m hios_tvm schedule {graph} --scheduler heft"
        closed = subprocess.run(["bash", "-c", f"{command} >&-"], stderr=subprocess.PIPE)
        assert (closed.returncode, closed.stderr) == (0, b"")
        narrow = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert (narrow.returncode, narrow.stderr) == (0, b"")
        assert b"heft" in narrow.stdout

    def test_a_schedule_and_a_scheduler(self, hios: Any, graph: str, tmp_path: Path) -> None:
        saved = tmp_path / "s.json"
        assert hios("schedule", graph, "--save-schedule", saved)[0] == 0
        both = ("--load-schedule", saved, "--scheduler", "heft")
        code, out, err = hios("schedule", graph, *both)
        assert (code, out, "one of them" in err) == (2, "", True)
        code, out, err = hios("schedule", graph, "--target", "cuda")
        assert (code, out, "--target" in err) == (2, "", True)

    def test_a_closed_pipe_is_quiet(self, graph: str) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            done = subprocess.run(
                self.command("schedule", graph, "--json"),
                stdout=pipe,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert done.returncode == 141
        assert done.stderr == b""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_full_standard_output_is_one_line(self, graph: str) -> None:
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                self.command("schedule", graph, "--json"),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "No space left on device" in done.stderr

    def test_an_interrupt_is_130_without_traceback(self, tmp_path: Path) -> None:
        fifo = tmp_path / "graph.json"
        os.mkfifo(fifo)  # the verb blocks on reading it
        process = subprocess.Popen(
            self.command("schedule", str(fifo)),
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background may have had SIGINT ignored for them.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        with process, fifo.open("wb"):  # returns once the reader has opened its end
            process.send_signal(signal.SIGINT)
            try:
                _, err = process.communicate(timeout=30)
            finally:
                process.kill()
        assert process.returncode == 130
        assert err == "hios: interrupted\n"

    def test_no_colour_in_a_pipe(self, graph: str) -> None:
        done = subprocess.run(
            self.command("schedule", graph), capture_output=True, text=True, check=True
        )
        assert "\x1b" not in done.stdout
        assert done.stderr == ""
