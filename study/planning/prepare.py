"""Prepare what the trials of a study share: the folder of the backbone and the features of the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from study.config.settings import Settings
from study.data import features
from study.models.pretrained import backbone_hash, load_processor
from study.models.tiny import tiny_checkpoint
from study.planning.plan import StudyPlan

PROMPT_REPEATS = 100  # of the prompt in the training text of the tiny tokenizer, so that it becomes few tokens


@dataclass(frozen=True)
class Prepared:
    """What the trials of a study share.

    Attributes:
        backbone: hub id or folder.
        backbone_hash: of its weights.
        features: folder of the features.
    """

    backbone: str
    backbone_hash: str
    features: Path


def prepare(plan: StudyPlan) -> Prepared:
    """Create the tiny backbone if it is requested, and compute the features. Both are cached."""
    request, corpus = plan.request, plan.corpus
    backbone = request.settings.backbone.spec
    if backbone == "tiny":
        transcripts = corpus.utterances.loc[corpus.utterances["split"] == "train", "transcript"].tolist()
        texts = [*_prompt_texts(request.settings) * PROMPT_REPEATS, *transcripts]
        backbone = str(tiny_checkpoint(texts, request.cache))
    extractor, loudness = load_processor(backbone).feature_extractor, request.settings.corpus.loudness
    folder = features.build(corpus.utterances, corpus.content_hash, extractor, request.cache, loudness)
    return Prepared(backbone, backbone_hash(backbone), folder)


def _prompt_texts(settings: Settings) -> list[str]:
    prompt = settings.prompt
    return ["system\nuser\nassistant\nAudio 1: ", prompt.system, prompt.question_with_labels(), *prompt.labels]
