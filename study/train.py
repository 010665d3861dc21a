"""Train one configuration, print its metrics and export its adapter.

    python study/train.py --config results/STUDY/trials/00004.json
    torchrun --nproc-per-node 2 study/train.py --config my.toml

The same command resumes an interrupted run or shows a finished one. ``--epochs 0`` evaluates the untrained backbone.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # replace study/, which Python put first, by the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from study.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
