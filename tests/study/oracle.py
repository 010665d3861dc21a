"""Measure which planted gaps can be closed at all, by training on the same corpus without gaps (the oracle).

``python -m tests.study.oracle --seeds 0,1,2`` trains plain ERM on the corpus with one planted gap, and on the corpus
without gaps, and evaluates both on the dev and test clips of the corpus with the gap. A gap that affects only training
(scarcity, prior) is closable: the oracle does not have it. A gap in the clips themselves (cue) is not: the oracle has
it too, and only a worse result for the other gender would close it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from study.cli.request import search_request
from study.cli.sweep import make_parser
from study.config.settings import Parallelism
from study.data import features
from study.data.corpora.synthetic.planted_gaps import PLANTED_GAPS
from study.data.examples import Examples
from study.evaluation.label_likelihood import prediction_frame, score_examples
from study.models.pretrained import load_processor
from study.planning.plan import build_plan
from study.planning.prepare import prepare
from study.storage.schemas import UTTERANCE_COLUMNS
from study.storage.study_folder import StudyFolder
from study.training.engine import join_process_group
from study.training.run_plan import RunPlan
from study.training.trainer import Trainer

EPOCHS = 4  # one more than the default study takes


def train_on(planted_gaps: str, storage: str, seed: int) -> Trainer:
    """Train plain ERM for ``EPOCHS`` on the synthetic corpus with these planted gaps."""
    flags = ["--planted-gaps", planted_gaps, "--storage", storage, "--num-workers", "1", "--epochs", str(EPOCHS)]
    plan = build_plan(search_request(*make_parser().read(flags), cores=1))
    settings = plan.request.settings.with_overrides({"loss.method": "erm"})
    prepared = prepare(plan)
    trainer = Trainer(
        RunPlan(
            settings=settings,
            parallelism=Parallelism(num_workers=1, zero_stage=0),
            config_id=planted_gaps,
            features=prepared.features,
            backbone=prepared.backbone,
            folder=StudyFolder.at(storage, "oracle"),
        ),
        seed,
    )
    for _ in range(EPOCHS):
        trainer.train_epoch()
    return trainer


def signed_accuracy_gap(trainer: Trainer, planted_features: Path, language: str) -> float:
    """Return women's minus men's accuracy (a fraction) in a language, on dev and test of the corpus with the gap."""
    dataset = features.load(planted_features)
    processor = load_processor(trainer.plan.backbone)
    utterances = dataset.select_columns(list(UTTERANCE_COLUMNS)).to_pandas()
    frames = []
    for split in ("dev", "test"):
        rows = np.flatnonzero(utterances["split"] == split)
        examples = Examples.of_rows(dataset, rows, trainer.data.cells, trainer.plan.settings.prompt, processor)
        scores = score_examples(trainer.engine.deepspeed, examples, 64, trainer.device)
        frames.append(prediction_frame(examples, scores, utterances))
    frame = pd.concat(frames).query("language == @language")
    correct = (frame["predicted"] == frame["emotion"]).groupby(frame["gender"]).mean()
    return float(correct["female"] - correct["male"])


def compare(seed: int, storage: str) -> pd.DataFrame:
    """Return one row per planted gap: the gap after training with it, and after training without it (the oracle)."""
    rows = []
    oracle = train_on("none", storage, seed)
    for gap in PLANTED_GAPS:
        planted = train_on(gap.name, storage, seed)
        clips = planted.plan.features
        rows.append(
            {
                "gap": gap.name,
                "group": f"{gap.language} {gap.gender}",
                "closable": gap.closable,
                "seed": seed,
                "planted": signed_accuracy_gap(planted, clips, gap.language),
                "oracle": signed_accuracy_gap(oracle, clips, gap.language),
            }
        )
        planted.close()
    oracle.close()
    return pd.DataFrame(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.study.oracle", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--storage", default=None, help="folder for the corpora (default: a temporary one)")
    options = parser.parse_args()
    join_process_group()
    with tempfile.TemporaryDirectory() as folder:
        table = pd.concat([compare(int(seed), options.storage or folder) for seed in options.seeds.split(",")])
    print("F - M accuracy, points, dev and test together (mean and range over seeds)")
    for (gap, group), rows in table.groupby(["gap", "group"], sort=False):
        words = [
            f"{name} {100 * rows[name].mean():+.1f} [{100 * rows[name].min():+.1f}, {100 * rows[name].max():+.1f}]"
            for name in ("planted", "oracle")
        ]
        print(f"{gap:10}{group:12}{'closable' if rows['closable'].iloc[0] else 'not closable':14}" + "   ".join(words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
