#!/usr/bin/env bash
# Run one step of a build: one line when it passes, its output when it does not.
#
#     tools/step.sh [-v] TITLE COMMAND...
#
# With -v the output is shown as it comes.
set -uo pipefail

is_verbose=
if [ "$1" = -v ]; then
    is_verbose=1
    shift
fi
title=$1
shift
started=$SECONDS
if [ -n "$is_verbose" ]; then
    echo "$title ..."
    "$@"
    code=$?
else
    printf '%s ... ' "$title"
    output=$("$@" 2>&1)
    code=$?
fi
if [ $code -eq 0 ]; then
    echo "${is_verbose:+$title: }ok ($((SECONDS - started)) s)"
else
    echo "${is_verbose:+$title: }FAILED (exit code $code)"
    [ -n "$is_verbose" ] || printf '%s\n' "$output" >&2
fi
exit $code
