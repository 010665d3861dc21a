"""Search fairness-weight schedules and MinMaxGAP coefficients of a speech LLM: the main job.

    python study/sweep.py

runs the default study: eight trials on the synthetic corpus with the tiny backbone. It leaves a report with the Pareto
front of weighted F1 against the gender gap. The same command resumes an interrupted study or shows a finished one;
with more trials, seeds or hyperparameters it runs what is missing. ``python study/sweep.py status STUDY`` shows its
progress.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # replace study/, which Python put first, by the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from study.cli.sweep import main

if __name__ == "__main__":
    sys.exit(main())
