"""Train the arms of an ablation on the same seeds and compare each with ERM.

    python study/ablation.py --arms 'leave-one-out'

The arms are defined in ``search_spaces/ablation_arms.py``; ``--from STUDY`` adds the best configuration of a search.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # replace study/, which Python put first, by the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from study.cli.ablation import main

if __name__ == "__main__":
    sys.exit(main())
