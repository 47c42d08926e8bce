"""The command line `hios`: one verb a file.

A verb's module costs nothing to import beyond click; what it needs to work is imported when it
runs, so that `hios --help` and `hios schedule graph.json` start without TVM.

Exit codes: 0 done; 1 `hios doctor` found something that does not work; 2 a mistake that the
message explains; 130 interrupted; 141 the reader of the output has gone.
"""
