"""``python -m mailserver.cli``."""

import sys

from mailserver.cli import main

if __name__ == "__main__":
    sys.exit(main())
