"""The flags of the scripts that train: of any study, and those of a search beside them."""

from __future__ import annotations

import argparse

from search_spaces import SPACES
from study.halving import NAME
from study.planning import GRID_POINTS, SAMPLERS
from study.trackers import TRACKERS


def add_study_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say what is studied and where; other scripts build on their names."""
    what = parser.add_argument_group("what is studied")
    what.add_argument(
        "--corpus",
        default="embedded",
        metavar="SPEC",
        help="embedded | meld-st:DIR | manifest:FILE (default: embedded)",
    )
    what.add_argument(
        "--split",
        default="parallel",
        metavar="NAME",
        help="parallel | official | speaker: the corpus's own split with parallel utterances on one side, the authors' "
        "as it is, or speakers held out (default: parallel)",
    )
    what.add_argument(
        "--plants",
        default=None,
        metavar="A,B",
        help="planted gaps of the embedded corpus: scarcity,prior,cue or none (default: all three)",
    )
    what.add_argument(
        "--backbone",
        default="tiny",
        metavar="SPEC",
        help="tiny | HUB_ID | DIR of a Qwen2-Audio checkpoint (default: tiny)",
    )
    what.add_argument(
        "--modalities",
        default="speech+text",
        metavar="A,B",
        help="speech | speech+text | speech,speech+text (default: speech+text)",
    )
    what.add_argument("--seeds", default="0", metavar="0,1,2", help="of every configuration (default: %(default)s)")
    what.add_argument(
        "--epochs", default=None, type=int, metavar="N", help="at most so many epochs (default: 20; tiny: 3)"
    )
    what.add_argument(
        "--fix",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set any other setting by its dotted name, e.g. optimisation.learning_rate=1e-4; repeatable",
    )
    where = parser.add_argument_group("where and how")
    where.add_argument(
        "--study", default=None, metavar="NAME", help="name of the study (default: from corpus and space)"
    )
    where.add_argument(
        "--storage",
        default=None,
        metavar="DIR_OR_URL",
        help="where studies are kept (default: results/; inside a Ray job: ~/fair-ser-results)",
    )
    where.add_argument(
        "--cache",
        default=None,
        metavar="DIR",
        help="where what studies share is kept: the embedded corpus, features, a frozen tower's states; a folder that "
        "every machine of a cluster sees (default: cache in --storage; ~/.cache/fair-ser if that is a URL)",
    )
    where.add_argument(
        "--ranks",
        default=None,
        type=int,
        metavar="N",
        help="worker processes a trial (default: 1 on GPUs or a running cluster, else 2, or 1 on a single core)",
    )
    where.add_argument(
        "--zero-stage", default=2, type=int, metavar="0|1|2|3", help="what DeepSpeed shards over them (default: 2)"
    )
    where.add_argument(
        "--profile",
        action="store_true",
        help="each trial leaves torch's trace of a few training steps of its first seed, and a page on where their "
        "time goes, beside its records",
    )
    where.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def add_search_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a search, beside those of any study."""
    search = parser.add_argument_group("the search")
    search.add_argument(
        "--space",
        default="fairness",
        metavar="A+B",
        help=f"search space: {' | '.join(SPACES)} | FILE.toml, or several joined with + (default: fairness; "
        "python -m search_spaces show NAME)",
    )
    search.add_argument("--trials", default=8, type=int, metavar="N", help="configurations in the study (default: 8)")
    search.add_argument(
        "--objectives",
        default="dev_w_f1:max,dev_gap:min",
        metavar="A:max,B:min",
        help="two or three recorded metrics, also of a language, modality or cell, e.g. dev_gap_tpr@de:min; a wrong "
        "name lists them all (default: dev_w_f1:max,dev_gap:min)",
    )
    search.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="'gap<=0.03'",
        help="a bound that the sampler should keep to, on any such metric; repeatable",
    )
    search.add_argument(
        "--sampler",
        default="tpe",
        metavar="NAME",
        help=f"{' | '.join(SAMPLERS)}: what proposes configurations; a grid has up to {GRID_POINTS} values a knob "
        "(default: tpe)",
    )
    search.add_argument(
        "--sampler-seed",
        default=0,
        type=int,
        metavar="N",
        help="of what the sampler draws; each call of a study draws anew from it (default: 0)",
    )
    search.add_argument(
        "--retries",
        default=1,
        type=int,
        metavar="N",
        help="how often a trial that fails is tried again at once, from its last epoch (default: 1); the next call "
        "tries it once more",
    )
    search.add_argument(
        "--budget",
        default=None,
        type=float,
        metavar="HOURS",
        help="worker-hours (a worker has a GPU, or a core where there is none): refuse a study that takes more by what "
        "earlier ones took, and say how many trials fit",
    )
    search.add_argument(
        "--early-stopping",
        default="none",
        metavar="RULE",
        help=f"none | {NAME}[:eta=3,grace=1]: at epochs grace, grace*eta, ... the best 1/eta go on (default: none)",
    )
    search.add_argument(
        "--track",
        default=None,
        metavar="A,B",
        help=f"{' | '.join(TRACKERS)}: send trials there too (TensorBoard's files are in STUDY/ray/tune anyway)",
    )
