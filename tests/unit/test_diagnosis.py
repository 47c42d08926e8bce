"""`hios doctor`, on this machine and on broken ones."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def doctor(**environment):
    """Return (exit code, findings by name) of a doctor with these variables set."""
    done = subprocess.run(
        [sys.executable, "-m", "hios_tvm", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    return done.returncode, {finding["name"]: finding for finding in told["findings"]}


@pytest.fixture(scope="module")
def healthy():
    code, findings = doctor()
    assert code == 0, findings
    return findings


def test_a_healthy_machine(healthy):
    assert healthy["apache-tvm"]["detail"].startswith("0.27")
    assert re.match(r"\d+ ", healthy["LLVM"]["detail"])
    assert "cores usable" in healthy["CPU"]["detail"]
    assert "cost model" in healthy
    for finding in healthy.values():
        assert finding["status"] in ("ok", "absent")
        if finding["status"] == "ok":
            assert finding["remedy"] == ""


def test_every_dependency_is_looked_at(healthy):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cuda"]]
    assert {re.split(r"[<>=!~ ]", text)[0] for text in wanted} <= healthy.keys()


def test_broken_packages_come_with_a_remedy(tmp_path):
    (tmp_path / "xgboost.py").write_text("import os; os.abort()")
    (tmp_path / "tvm.py").write_text("raise OSError('libtvm.so: cannot open shared object')")
    (tmp_path / "matplotlib.py").write_text("syntax error")
    code, findings = doctor(PYTHONPATH=str(tmp_path))
    assert code == 1
    broken = {name for name, finding in findings.items() if finding["status"] == "broken"}
    assert broken == {"xgboost", "apache-tvm", "matplotlib"}
    assert "libtvm.so" in findings["apache-tvm"]["detail"]
    for name in broken:
        assert "pip install" in findings[name]["remedy"]
    assert findings["onnx"]["status"] == "ok"


def test_no_compiler_and_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    environment = {"PATH": str(tmp_path), "CXX": "", "XDG_CACHE_HOME": str(tmp_path / "file")}
    code, findings = doctor(**environment)
    assert code == 1
    assert findings["C++ compiler"]["status"] == "broken"
    assert "apt install" in findings["C++ compiler"]["remedy"]
    assert findings["cache"]["status"] == "broken"
    assert "XDG_CACHE_HOME" in findings["cache"]["remedy"]
    assert findings["CUDA"]["status"] == "absent"


def test_the_table_names_what_is_missing():
    done = subprocess.run(
        [sys.executable, "-m", "hios_tvm", "doctor"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "apache-tvm" in done.stdout
    assert "\x1b" not in done.stdout
