"""``python -m study.data.corpora check DIR_OR_MANIFEST``: see ``study.cli.corpus``."""

import sys

from study.cli.corpus import main

if __name__ == "__main__":
    sys.exit(main())
