"""Time to show a finished study, as a ratio to ``import pandas, seaborn`` in the same run.

    python -m tests.benchmarks.show_finished [--repeats 5]

Both are timed in processes of their own, in turns; the medians are compared. The study has 8 trials of one seed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from study.cli.request import search_request
from study.cli.sweep import make_parser
from tests import REPO
from tests.analysis.studies import figures, write_plan, write_run, write_trial

TRIALS = 8


def write_study(storage: Path) -> list[str]:
    """Write a finished study with a report; return the options of its command."""
    arguments = ["--storage", str(storage), "--study", "s", "--trials", str(TRIALS)]
    request = search_request(*make_parser().read(arguments), cores=os.cpu_count())
    settings = request.settings.model_dump(mode="json")
    folder = write_plan(storage / "s", settings=settings, trials=TRIALS, hyperparameters=[])
    for number in range(TRIALS):
        write_trial(folder, number, f"c{number}")
        write_run(folder, f"c{number}", 0, figures(0.5, 0.05), figures(0.45, 0.06))
    folder.write_bytes("report/report.html", b"")
    return arguments


def seconds_of(command: list[str]) -> float:
    """Return the wall-clock seconds of a process."""
    start = time.perf_counter()
    subprocess.run(command, cwd=REPO, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as storage:
        commands = {
            "import pandas, seaborn": [sys.executable, "-c", "import pandas, seaborn"],
            "show a finished study": [sys.executable, "study/sweep.py", *write_study(Path(storage))],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for repeat in range(repeats + 1):
            for name, command in commands.items():
                elapsed = seconds_of(command)
                if repeat:  # the first run of each fills the disk cache
                    seconds[name].append(elapsed)
    for name, values in seconds.items():
        print(f"{name:24}{median(values):6.2f} s (of {repeats}: {min(values):.2f} to {max(values):.2f})")
    imports, shown = (median(values) for values in seconds.values())
    print(f"{'ratio':24}{shown / imports:6.2f}")


if __name__ == "__main__":
    main()
