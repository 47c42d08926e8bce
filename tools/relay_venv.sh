#!/usr/bin/env bash
# Make the environment with Relay: TVM 0.17 with Python 3.11.
#
#     tools/relay_venv.sh FOLDER
#     tools/relay_venv.sh --check    only tell whether it can be made here (exit code 3: no)
#
# PyPI has no apache-tvm with Relay any more. The wheel of bitblas ships a whole TVM 0.17 (LLVM,
# CUDA, Relay, graph executor) in a folder; it is installed without its dependencies, and nothing
# of bitblas itself is used. tools/relay_env.sh runs commands with it.
# RELAY_PYTHON names the interpreter.
set -euo pipefail

folder=$1
here=$(cd "$(dirname "$0")" && pwd)

is_fit() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

python=
for candidate in ${RELAY_PYTHON:-python3.11 python3 ${PYTHON:-}}; do
    if is_fit "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: no Python 3.11 with the venv module found (tried" \
        "${RELAY_PYTHON:-python3.11, python3}); TVM 0.17 with Relay needs it. Install one" \
        "(Debian: apt install python3.11 python3.11-venv) or name it:" \
        "make relay-env RELAY_PYTHON=/path/to/python3.11" >&2
    exit 3
fi
if [ "$(uname -sm)" != 'Linux x86_64' ]; then
    echo "error: the wheel with TVM 0.17 is for Linux on x86-64, this is $(uname -sm); build" \
        "TVM ≤ 0.19 from source instead (docs/relay.md)" >&2
    exit 3
fi
[ "$folder" != --check ] || exit 0

export PYTHON=$python
# pip would complain of their missing dependencies at every later step: both come last.
"$folder/bin/python" -m pip uninstall -qq --yes bitblas hios-tvm 2>/dev/null || true
# What TVM 0.17 needs, then what hios-tvm needs, in versions that go with numpy 1.
"$here/venv.sh" "$folder" \
    'numpy==1.26.4' attrs decorator psutil scipy tornado cloudpickle typing_extensions \
    'ml_dtypes>=0.5,<0.6' 'onnx==1.15.0' 'protobuf<5' \
    'nvidia-cuda-nvrtc-cu12>=12.4,<13' 'nvidia-cuda-runtime-cu12>=12.4,<13' \
    click msgspec 'networkx>=3.4' 'numba>=0.61' 'onnxruntime==1.19.2' rich safetensors \
    'hypothesis>=6.120' 'pytest>=8.3'
"$here/venv.sh" "$folder" --no-deps 'bitblas==0.1.0.post1' --editable .

if "$folder/bin/python" -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null; then
    rm -rf "$folder/cuda-stub"
else
    echo 'no NVIDIA driver (libcuda.so.1) on this machine: a stub without devices stands in for it;' \
        'compiling for CUDA works, running on a GPU does not'
    mkdir -p "$folder/cuda-stub"
    "${CC:-cc}" -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$folder/cuda-stub/libcuda.so.1" \
        "$here/cuda_stub.c"
fi
"$here/relay_env.sh" "$folder" python -c \
    'import tvm; from tvm import relay; print("TVM", tvm.__version__, "with Relay is ready")'
