#!/usr/bin/env bash
# Make a virtual environment and install into it, quietly, with a line per step.
#
#     tools/venv.sh FOLDER PIP_ARGUMENT...
#
# The interpreter is $PYTHON when set, else the first of python3, python3.13, python3.12 and
# python3.11 that is 3.11 or newer and has the venv module. Where packages come from is left
# to pip's own configuration.
set -euo pipefail

folder=$1
shift

is_fit() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if is_fit "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if [ -n "${PYTHON:-}" ]; then
        echo "error: PYTHON=$PYTHON is not a Python ≥ 3.11 with the venv module" >&2
    else
        echo "error: no Python ≥ 3.11 with the venv module found (tried python3, python3.13," \
            "python3.12, python3.11); install one (Debian: apt install python3 python3-venv)" \
            "or name it: make PYTHON=/path/to/python3" >&2
    fi
    exit 2
}

# A half-made environment, or one whose interpreter has gone, is made anew.
if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "making $folder with $("$python" --version)"
    rm -rf "$folder"
    "$python" -m venv "$folder"
fi
echo "installing packages into $folder (the first time takes some minutes)"
started=$SECONDS
PIP_DISABLE_PIP_VERSION_CHECK=1 "$folder/bin/python" -m pip install -qq "$@"
echo "$folder is ready after $((SECONDS - started)) s"
