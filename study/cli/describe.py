"""Print a plan before it runs."""

from __future__ import annotations

from rich.console import Console

from study.planning.plan import StudyPlan
from study.search.mo_asha import NAME


def describe(plan: StudyPlan, console: Console) -> None:
    """Print what will be done, where it will run and where it goes."""
    draft = plan.draft
    epochs = draft.settings.optimisation.epochs
    runs = draft.trials * len(draft.seeds)
    describe_data(plan, console)
    search = f"{draft.trials} trials × {len(draft.seeds)} seeds = {runs} runs of at most {epochs} epochs"
    console.print(f"{'search':11}{search}, space {draft.space}:")
    for arm in () if plan.space.hyperparameters else plan.space.baselines:
        console.print(f"{'':13}{arm.label}{f' ({arm.note})' if arm.note else ''}")
    for hyperparameter in plan.space.hyperparameters:
        console.print(f"{'':13}{hyperparameter.name.removeprefix('objective.'):32} {hyperparameter.range()}")
    if plan.space.hyperparameters:
        search_objectives = [f"{metric} {mode}" for metric, mode in draft.search_objectives.objectives]
        console.print(
            f"{'objectives':11}{', '.join([*search_objectives, *map(str, draft.search_objectives.constraints)])}; "
            f"sampler {draft.sampler}"
            f"{f', seed {draft.sampler_seed}' if draft.sampler_seed else ''}"
        )
    if draft.early_stopping:
        rungs = ", ".join(map(str, draft.early_stopping.rungs(epochs)))
        console.print(
            f"{'stopping':11}{NAME}: one in {draft.early_stopping.reduction_factor} goes on after "
            f"epochs {rungs} of seed "
            f"{draft.seeds[0]}; {', '.join(baseline.label for baseline in plan.space.baselines)} always do"
        )
    console.print(f"{'resources':11}{draft.parallelism.num_workers} ranks a trial, ZeRO-{draft.parallelism.zero_stage}")


def describe_data(plan: StudyPlan, console: Console) -> None:
    """Print where the study goes, its corpus and its backbone."""
    draft, settings = plan.draft, plan.draft.settings
    counts = plan.counts()
    lines = {
        "study": f"{draft.name} in {draft.folder.uri}",
        "corpus": f"{settings.corpus.spec} ({', '.join(plan.languages)}): "
        + ", ".join(f"{split} {n:,}" for split, n in counts.items())
        + (f"; {len(plan.corpus.skipped)} clips skipped" if plan.corpus.skipped else ""),
        "backbone": f"{settings.backbone.spec}, LoRA rank {settings.backbone.lora_rank}, "
        + " and ".join(settings.modalities),
    }
    for key, value in lines.items():
        console.print(f"{key:11}{value}")
    for line in plan.corpus.clips_in_words():
        console.print(line)
