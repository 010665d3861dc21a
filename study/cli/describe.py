"""Print a plan before it runs."""

from __future__ import annotations

from rich.console import Console

from study.common.errors import plural
from study.planning.plan import StudyPlan
from study.search.mo_asha import NAME


def describe(plan: StudyPlan, console: Console) -> None:
    """Print the data, trials, search space, objectives and resources of a study."""
    request = plan.request
    describe_data(plan, console)
    trials, seeds = plural(request.trials, "trial"), plural(len(request.seeds), "seed")
    runs = plural(request.trials * len(request.seeds), "run")
    epochs = request.settings.optimisation.epochs
    console.print(
        f"{'search':11}{trials} × {seeds} = {runs} of at most {plural(epochs, 'epoch')}, space {request.space}:"
    )
    for arm in () if plan.space.hyperparameters else plan.space.baselines:
        console.print(f"{'':13}{arm.label}{f' ({arm.note})' if arm.note else ''}")
    for hyperparameter in plan.space.hyperparameters:
        console.print(f"{'':13}{hyperparameter.name.removeprefix('loss.'):32} {hyperparameter.range()}")
    if plan.space.hyperparameters:
        objectives = [f"{metric} {mode}" for metric, mode in request.search_objectives.objectives]
        objectives += map(str, request.search_objectives.constraints)
        seed = f", seed {request.sampler_seed}" if request.sampler_seed else ""
        console.print(f"{'objectives':11}{', '.join(objectives)}; sampler {request.sampler}{seed}")
    if request.early_stopping:
        rungs = request.early_stopping.rungs(epochs)
        console.print(
            f"{'stopping':11}{NAME}: one in {request.early_stopping.reduction_factor} trials continues after "
            f"{'epoch' if len(rungs) == 1 else 'epochs'} {', '.join(map(str, rungs))} of seed {request.seeds[0]}; "
            f"never stopped: {', '.join(baseline.label for baseline in plan.space.baselines)}"
        )
    workers = plural(request.parallelism.num_workers, "worker")
    console.print(f"{'resources':11}{workers} per trial, ZeRO-{request.parallelism.zero_stage}")


def describe_data(plan: StudyPlan, console: Console) -> None:
    """Print the study folder, the corpus and the backbone."""
    request, settings, corpus = plan.request, plan.request.settings, plan.corpus
    counts = ", ".join(f"{split} {number:,}" for split, number in plan.counts().items())
    skipped = f"; {plural(len(corpus.skipped), 'clip')} skipped" if corpus.skipped else ""
    modalities = " and ".join(settings.modalities)
    console.print(f"{'study':11}{request.name} in {request.folder.uri}")
    console.print(f"{'corpus':11}{settings.corpus.spec} ({', '.join(plan.languages)}): {counts}{skipped}")
    console.print(
        f"{'backbone':11}{settings.backbone.spec}, LoRA rank {settings.backbone.lora_rank}, modalities {modalities}"
    )
    for line in corpus.clip_messages():
        console.print(line)
