"""Pack what a machine with a GPU needs into one folder: no compiler, no CUDA toolkit, < 60 MB.

    python tools/gpu_bundle.py out/gpu-bundle [--arch sm_90] [--networks zoo:squeezenet ...]

The folder holds our packages, tests and benchmarks as they are, the small runtime of TVM with its
Python files, wheels of what they import (for Python 3.12), and networks compiled to machine
code. ``run.sh`` there unpacks them once and runs the tests and benchmarks.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LIMIT_BYTES = 60_000_000
NETWORKS = (
    "zoo:squeezenet@224",
    "zoo:inception_v3@299",
    "zoo:nasnet_mobile@224",
    "zoo:randwire_small@224",
)
"""With TVM's virtual machine beside them."""

MORE = (
    "zoo:alexnet@224",
    "zoo:bert_base@128",
    "zoo:moe_block@128",
    "zoo:nasnet_large@331",
    "zoo:randwire_large@224",
    "zoo:randwire_regular@224",
    "zoo:resnet50@224",
    "zoo:retinanet@800",
    "zoo:squeezenet_bypass@224",
    "zoo:vgg16@224",
    "light:bvlc_alexnet",
    "light:densenet121",
    "light:inception_v1",
    "light:inception_v2",
    "light:resnet50",
    "light:shufflenet",
    "light:squeezenet",
    "light:vgg19",
    "light:zfnet512",
)
"""Kernels alone."""

TF32 = ("zoo:squeezenet@224", "zoo:inception_v3@299")
"""Once more, with kernels that round factors for the tensor cores."""

PACKAGES = ("hios", "graph_executor", "cost_model", "hios_tvm", "benchmarks")
WHEELS = (
    "apache-tvm-ffi==0.1.14.post1",
    "click",
    "cuda-bindings",
    "cuda-core",
    "cuda-pathfinder",
    "hypothesis",
    "iniconfig",
    "markdown-it-py",
    "mdurl",
    "ml-dtypes",
    "msgspec",
    "networkx",
    "packaging",
    "pluggy",
    "psutil",
    "pygments",
    "pytest",
    "rich",
    "safetensors",
    "sortedcontainers",
    "typing-extensions",
)
PLATFORMS = ("2_28", "2_27", "2_26", "2_24", "2_17")
# Of TVM: what its runtime does not import.
LEFT_OUT = ("3rdparty", "src", "include", "cmake", "web", "testing", "licenses", "lib", "lib64")
RUNTIME = ("libtvm_runtime.so", "libtvm_runtime_cuda.so", "libtvm_runtime_extra.so")

RUN = """#!/usr/bin/env bash
# Runs the tests and benchmarks on this machine's GPUs; needs Python 3.12 with numpy and NVIDIA's
# driver. Arguments: nothing (all), `test ARGS` (pytest), or `bench NAME ARGS`.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' ||
    { echo 'run.sh: these wheels are for Python 3.12; set PYTHON to one'; exit 2; }
if [ ! -e packages/.ready ]; then
    for archive in wheels/*; do "$PYTHON" -m zipfile -e "$archive" packages; done
    "$PYTHON" -m zipfile -e networks.zip networks
    touch packages/.ready
fi
export PYTHONPATH="$PWD:$PWD/packages" TVM_USE_RUNTIME_LIB=1 HIOS_NETWORKS="$PWD/networks"
"$PYTHON" -c 'import numpy' || { echo 'run.sh: this Python has no numpy; set PYTHON'; exit 2; }
case "${1:-all}" in
    test) shift; exec "$PYTHON" -m pytest tests/gpu "$@" ;;
    bench) name=$2; shift 2; exec "$PYTHON" -m "benchmarks.gpu.$name" "$@" ;;
    all)
        mkdir -p results
        "$PYTHON" -m graph_executor.cuda.probe | tee results/machine.json
        "$PYTHON" -m pytest tests/gpu -rs 2>&1 | tee results/tests.txt
        "$PYTHON" -m benchmarks.gpu.latency --json results/latency.json
        "$PYTHON" -m benchmarks.gpu.launches --json results/launches.json
        "$PYTHON" -m benchmarks.gpu.kernels --json results/kernels.json
        "$PYTHON" -m benchmarks.gpu.groups --out results/groups.jsonl --budget 10m
        "$PYTHON" -m benchmarks.two_convs --networks networks --json results/two_convs.json
        ;;
    *) echo "run.sh: unknown '$1'; use test or bench"; exit 2 ;;
esac
"""


def main() -> None:
    """Build the bundle and print its size by part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--more", nargs="*", default=list(MORE), help="without virtual machine")
    parser.add_argument("--tf32", nargs="*", default=list(TF32), help="once more with TF32")
    parser.add_argument("--without-two-convs", action="store_true", help="leave its kernels out")
    parser.add_argument(
        "--kept",
        type=Path,
        help="folder where compiled networks stay for the next time; remove it when kernels change",
    )
    options = parser.parse_args()
    target: Path = options.folder
    if target.exists():
        if not (target / "run.sh").is_file():
            sys.exit(f"gpu-bundle: {target} exists and is no bundle; remove it or choose another")
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".gpu-bundle.", dir=target.parent) as scratch:
        folder = Path(scratch, "bundle")
        folder.mkdir()
        _copy_sources(folder)
        _copy_tvm(folder)
        _download(folder / "wheels")
        kept = options.kept or Path(scratch, "kept")
        for reference in dict.fromkeys([*options.networks, *options.more, *options.tf32]):
            if reference in (*options.networks, *options.more):
                has_machines = reference in options.networks
                _compile(reference, options.arch, kept, has_machines=has_machines)
            if reference in options.tf32:
                _compile(reference, options.arch, kept, allow_tf32=True)
        if not options.without_two_convs and not (kept / "pair_32x7").exists():
            from benchmarks.two_convs import save_pairs

            save_pairs(kept, f"cuda:{options.arch}")
        shutil.copytree(kept, folder / "networks")
        # Whoever unpacks wheels can unpack these as well, and they take a third.
        _pack(folder / "networks", folder / "networks.zip")
        _pack(folder / "packages", folder / "wheels" / "tvm_runtime.zip")
        (folder / "run.sh").write_text(RUN)
        (folder / "run.sh").chmod(0o755)
        folder.rename(target)
    sizes = {part.name: _size(part) for part in sorted(target.iterdir())}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{size / 1e6:8.1f} MB  {name}")
    total = sum(sizes.values())
    print(f"{total / 1e6:8.1f} MB  {target} (limit {LIMIT_BYTES / 1e6:.0f} MB)")
    if total >= LIMIT_BYTES:
        sys.exit("gpu-bundle: too large; leave networks out with --networks")


def _copy_sources(folder: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "results", "*.onnx", "assets")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("tests/gpu", "tests/support", "data"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "tests/conftest.py", "LICENSE", "docs/cuda.md"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def _copy_tvm(folder: Path) -> None:
    import tvm

    source = Path(tvm.__file__).parent
    target = folder / "packages" / "tvm"
    shutil.copytree(source, target, ignore=_ignored(source))
    (target / "lib").mkdir()
    for name in RUNTIME:
        shutil.copy(source / "lib" / name, target / "lib" / name)


def _ignored(source: Path):
    def ignore(folder: str, names: list[str]) -> set[str]:
        top = set(LEFT_OUT) if Path(folder) == source else set()
        return {name for name in names if name in top or name == "__pycache__"}

    return ignore


def _pack(folder: Path, archive: Path) -> None:
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
    shutil.rmtree(folder)


def _download(folder: Path) -> None:
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version", "3.12"]
    command += ["--implementation", "cp", "--dest", str(folder)]
    for version in PLATFORMS:
        command += ["--platform", f"manylinux_{version}_x86_64"]
    command += ["--platform", "manylinux2014_x86_64"]
    done = subprocess.run([*command, *WHEELS], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        sys.exit(f"gpu-bundle: cannot download wheels: {lines[-1]}")


def _compile(
    reference: str,
    arch: str,
    kept: Path,
    *,
    has_machines: bool = False,
    allow_tf32: bool = False,
) -> None:
    """Compile a network into the folder `kept`, unless it is there."""
    from benchmarks.gpu.networks import save_network
    from benchmarks.gpu.virtual_machine import export_virtual_machine
    from hios_tvm.sources import choose_target, compile_model, resolve_model

    name = reference.replace(":", "_").replace("@", "_") + ("_tf32" if allow_tf32 else "")
    if (kept / name).exists():
        return
    print(f"compile {reference} for {arch}{' with TF32' * allow_tf32}", file=sys.stderr)
    target = choose_target(f"cuda:{arch}", None, allow_tf32)
    compiled = compile_model(reference, target)
    model = resolve_model(reference)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=_made(kept)) as scratch:
        folder = Path(scratch, name)
        save_network(folder, compiled, reference=reference, model=model)
        if has_machines:
            for tail in ("", "_graph"):
                path = folder / f"virtual_machine{tail}.so"
                export_virtual_machine(model, target, path, bool(tail))
        folder.rename(kept / name)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())


if __name__ == "__main__":
    main()
