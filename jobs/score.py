"""`batchscore run` for spark-submit: the same arguments, the same exit codes."""

import sys

from batchscore.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "run")
    sys.exit(main())
