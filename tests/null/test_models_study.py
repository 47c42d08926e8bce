"""What `optimize` and `dump_results` refuse before they compile anything."""

from pathlib import Path
from typing import Any

import pytest

from hios.errors import HiosError, InvalidOption, MissingFile, UnknownScheduler
from hios_tvm.models import Block, Graph, dump_results, optimize, placeholder, relu, reset_name


@pytest.fixture
def graph() -> Graph:
    reset_name()
    v = placeholder((1, 8, 8))
    block = Block(v.node)
    relu(block, [[v]], is_exit=True)
    return Graph("tiny", v.node, [block])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"height": 9}, InvalidOption, "9×8, but network 'tiny' takes images of 8×8"),
        ({"opt_type": "hios_lq"}, UnknownScheduler, "no scheduler 'hios-lq'; known are"),
        ({"batch_size": 0}, InvalidOption, "batch_size is 0"),
        ({"ngpu": 0}, InvalidOption, "ngpu is 0"),
        ({"number": 1.5}, InvalidOption, "number is 1.5"),
        ({"warmup": -1}, InvalidOption, "warmup is -1; it must be an integer of at least 0"),
        ({"device": "abacus"}, InvalidOption, "unknown device 'abacus'; it must be cpu or one of"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    graph: Graph, changes: dict[str, Any], error: type[HiosError], message: str
) -> None:
    arguments = {"height": 8, "width": 8, "graph": graph, "opt_type": "hios_lp", **changes}
    with pytest.raises(error, match=message):
        optimize(**arguments)


def test_results_need_a_schedule_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFile, match=r"no cpu_hios_lp_tiny_par_1_8_8.hios here .* optimize"):
        dump_results("tiny", 8, 8, 1.0, "hios_lp")
    with pytest.raises(InvalidOption, match="repeat is 0"):
        dump_results("tiny", 8, 8, 1.0, "hios_lp", repeat=0)
