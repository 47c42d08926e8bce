#!/usr/bin/env bash
# Run a command in the environment with Relay.
#
#     tools/relay_env.sh FOLDER COMMAND...
#
# FOLDER is what tools/relay_venv.sh made. RELAY_TVM=/path/to/tvm takes a TVM ≤ 0.19 of one's own
# instead, built from source there (its python/ and build/ are used).
set -euo pipefail

folder=$(cd "$1" && pwd)
shift
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
tvm=${RELAY_TVM:-$packages/bitblas/3rdparty/tvm}
if [ ! -d "$tvm/python/tvm/relay" ]; then
    echo "error: no TVM with Relay in $tvm (looked for python/tvm/relay)" >&2
    exit 2
fi
libraries=$packages/nvidia/cuda_nvrtc/lib:$packages/nvidia/cuda_runtime/lib
if [ -d "$folder/cuda-stub" ]; then
    libraries=$folder/cuda-stub:$libraries
fi
export PATH="$folder/bin:$PATH"
export PYTHONPATH="$tvm/python${PYTHONPATH:+:$PYTHONPATH}"
export TVM_LIBRARY_PATH=$tvm/build
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# No look-up of tuned schedules on the network.
export TOPHUB_LOCATION=${TOPHUB_LOCATION:-NONE}
exec "$@"
