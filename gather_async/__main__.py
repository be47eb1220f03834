"""``python -m gather_async``: the command line."""

import sys

from gather_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
