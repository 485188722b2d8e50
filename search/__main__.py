"""``python -m layersearch.search``: the command ``search``."""

import sys

from layersearch.search.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
