"""What a study needs before its first trial: the backbone's folder, and the corpus's features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from study.config.settings import Settings
from study.data import features
from study.models.pretrained import backbone_hash, load_processor
from study.models.tiny import tiny_checkpoint
from study.planning.plan import StudyPlan

PROMPT_SHARE = 100  # how often the tokenizer's training text repeats the prompt, so that it becomes few tokens


@dataclass(frozen=True)
class Prepared:
    """Attributes: backbone, a hub id or folder; its hash; the folder of the features."""

    backbone: str
    backbone_hash: str
    features: Path


def prepare(plan: StudyPlan) -> Prepared:
    """Make the tiny backbone if it is asked for, and compute the features; both are kept and found again."""
    backbone = plan.request.settings.backbone.spec
    if backbone == "tiny":
        table = plan.corpus.utterances
        transcripts = table.loc[table["split"] == "train", "transcript"].tolist()
        backbone = str(
            tiny_checkpoint([*_prompt_texts(plan.request.settings) * PROMPT_SHARE, *transcripts], plan.request.cache)
        )
    processor = load_processor(backbone)
    corpus, loudness = plan.corpus, plan.request.settings.corpus.loudness
    folder = features.build(
        corpus.utterances, corpus.content_hash, processor.feature_extractor, plan.request.cache, loudness
    )
    return Prepared(backbone, backbone_hash(backbone), folder)


def _prompt_texts(settings: Settings) -> list[str]:
    prompt = settings.prompt
    return ["system\nuser\nassistant\nAudio 1: ", prompt.system, prompt.asked(), *prompt.labels]
