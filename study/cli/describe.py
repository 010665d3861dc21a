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
    describe_subject(plan, console)
    search = f"{draft.trials} trials × {len(draft.seeds)} seeds = {runs} runs of at most {epochs} epochs"
    console.print(f"{'search':11}{search}, space {draft.space}:")
    for arm in () if plan.space.knobs else plan.space.references:
        console.print(f"{'':13}{arm.label}{f' ({arm.note})' if arm.note else ''}")
    for knob in plan.space.knobs:
        console.print(f"{'':13}{knob.name.removeprefix('objective.'):32} {knob.range()}")
    if plan.space.knobs:
        goals = [f"{metric} {mode}" for metric, mode in draft.goals.objectives]
        console.print(
            f"{'goals':11}{', '.join([*goals, *map(str, draft.goals.requirements)])}; sampler {draft.sampler}"
            f"{f', seed {draft.sampler_seed}' if draft.sampler_seed else ''}"
        )
    if draft.early_stopping:
        rungs = ", ".join(map(str, draft.early_stopping.rungs(epochs)))
        console.print(
            f"{'stopping':11}{NAME}: one in {draft.early_stopping.eta} goes on after epochs {rungs} of seed "
            f"{draft.seeds[0]}; {', '.join(reference.label for reference in plan.space.references)} always do"
        )
    console.print(f"{'resources':11}{draft.placement.ranks} ranks a trial, ZeRO-{draft.placement.zero_stage}")


def describe_subject(plan: StudyPlan, console: Console) -> None:
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
