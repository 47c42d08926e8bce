"""`python -m hios_tvm`: the command line."""

import sys

from hios_tvm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
