"""Print a plan before it runs."""

from __future__ import annotations

from rich.console import Console

from study.planning.plan import StudyPlan
from study.search.mo_asha import NAME


def describe(plan: StudyPlan, console: Console) -> None:
    """Print what will be done, where it will run and where it goes."""
    request = plan.request
    epochs = request.settings.optimisation.epochs
    runs = request.trials * len(request.seeds)
    describe_data(plan, console)
    search = f"{request.trials} trials × {len(request.seeds)} seeds = {runs} runs of at most {epochs} epochs"
    console.print(f"{'search':11}{search}, space {request.space}:")
    for arm in () if plan.space.hyperparameters else plan.space.baselines:
        console.print(f"{'':13}{arm.label}{f' ({arm.note})' if arm.note else ''}")
    for hyperparameter in plan.space.hyperparameters:
        console.print(f"{'':13}{hyperparameter.name.removeprefix('objective.'):32} {hyperparameter.range()}")
    if plan.space.hyperparameters:
        search_objectives = [f"{metric} {mode}" for metric, mode in request.search_objectives.objectives]
        console.print(
            f"{'objectives':11}{', '.join([*search_objectives, *map(str, request.search_objectives.constraints)])}; "
            f"sampler {request.sampler}"
            f"{f', seed {request.sampler_seed}' if request.sampler_seed else ''}"
        )
    if request.early_stopping:
        rungs = ", ".join(map(str, request.early_stopping.rungs(epochs)))
        console.print(
            f"{'stopping':11}{NAME}: one in {request.early_stopping.reduction_factor} goes on after "
            f"epochs {rungs} of seed "
            f"{request.seeds[0]}; {', '.join(baseline.label for baseline in plan.space.baselines)} always do"
        )
    console.print(
        f"{'resources':11}{request.parallelism.num_workers} ranks a trial, ZeRO-{request.parallelism.zero_stage}"
    )


def describe_data(plan: StudyPlan, console: Console) -> None:
    """Print where the study goes, its corpus and its backbone."""
    request, settings = plan.request, plan.request.settings
    counts = plan.counts()
    lines = {
        "study": f"{request.name} in {request.folder.uri}",
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
