"""Run the server: ``python -m headrace.local.clickhouse``."""

import sys

from headrace.local.clickhouse.server import main

if __name__ == "__main__":
    sys.exit(main())
