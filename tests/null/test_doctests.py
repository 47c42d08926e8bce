"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import hios
import hios_tvm.cli
import hios_tvm.report
from hios_tvm.cli.main import VERBS

# Modules that need more than this package's ground are left to tests of their own.
PACKAGES = (hios, hios_tvm.cli, hios_tvm.report)


def modules() -> Iterator[str]:
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            yield found.name


@pytest.mark.parametrize("name", list(modules()))
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        example
        for name in ("hios.structure", "hios_tvm.report.summary", "hios_tvm.cli.options")
        for test in finder.find(importlib.import_module(name))
        for example in test.examples
    ]
    assert len(found) >= 8
    assert {verb.replace("-", "_") for verb in VERBS} <= {
        name.rpartition(".")[2] for name in modules()
    }
