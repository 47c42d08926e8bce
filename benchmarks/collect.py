"""Measure groups of concurrent operators: `hios collect` as a script.

``python benchmarks/collect.py --models zoo:squeezenet@224 --target llvm --groups 50 --out g.jsonl``
or, the same, ``python -m benchmarks.collect …`` and ``hios collect …``.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    if __package__ is None:
        # Run by its path: the project is not on the path of modules unless it is installed.
        sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from hios_tvm.cli.main import main

    raise SystemExit(main(["collect", *sys.argv[1:]]))
