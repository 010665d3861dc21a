"""Evaluate an exported adapter on a corpus.

python study/evaluate.py --adapter DIR --corpus manifest:other.csv
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # replace study/, which Python put first, by the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from study.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
