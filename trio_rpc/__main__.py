"""``python -m trio_rpc``: the command line."""

from __future__ import annotations

import sys

from trio_rpc.cli import main

if __name__ == "__main__":
    sys.exit(main())
