"""The model card of an exported adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from study.config.config_id import differences
from study.config.settings import Settings


def card(
    settings: Settings, finished: Mapping[str, Any], study: Mapping[str, Any], base: str, tables: Mapping[str, str]
) -> str:
    """The adapter's README.

    Args:
        finished: ``finished.json`` of the run.
        study: ``study.json``.
        tables: figures as text, by split.
    """
    changed = [f"- `{key}`: {json.dumps(value, ensure_ascii=False)}" for key, value in differences(settings).items()]
    corpus = study["corpus"]
    counts = ", ".join(f"{split} {n:,}" for split, n in corpus["counts"].items())
    training = (
        f"Seed {finished['seed']}; of {finished['epochs_run']} epochs the one with the highest W-F1 on dev is kept, "
        f"number {finished['epoch']}."
        if finished["epochs_run"]
        else "Not trained: it leaves the backbone as it is (zero-shot)."
    )
    figures = [line for split, text in tables.items() for line in (f"### {split}", "", "```", text, "```", "")]
    front = yaml_block({"base_model": base, "library_name": "peft", "tags": ["speech-emotion-recognition", "lora"]})
    return "\n".join(
        [
            *front,
            f"# Emotion recognition adapter for {base}",
            "",
            "LoRA matrices"
            + "".join(f" and the whole {part}" for part in settings.backbone.trainable)
            + " of a Qwen2-Audio that names one of seven emotions (MELD's) in a clip of speech. " + training,
            "",
            "```python",
            "model = PeftModel.from_pretrained(Qwen2AudioForConditionalGeneration.from_pretrained(BASE), THIS_FOLDER)",
            "```",
            "",
            "`settings.json` has the prompt and the label words that it was trained with; with other words it is "
            "another classifier.",
            "",
            "## Settings that differ from the defaults",
            "",
            *(changed or ["None."]),
            "",
            "## Figures",
            "",
            "By the likelihood of the seven label words. In percentage points; the gap (AVG) of a cell is the mean of "
            "|F − M| on TPR, FPR, W-F1 and accuracy.",
            "",
            *figures,
            "## Corpus",
            "",
            f"{corpus['name']} ({corpus['spec']}), content {corpus['hash']}: {counts} utterances.",
            "",
            *(f"- {note}" for note in corpus["notes"]),
            "",
            "## Limits",
            "",
            "- Figures of one seed on one corpus; a gap of a few points can be noise at these sizes.",
            "- Dev chose the epoch, so its figures flatter; test chose nothing.",
            "- Genders are those of the corpus's annotation, two and unknown. Acted speech is not how people feel.",
            "- Not for decisions about people: emotion recognition from voice is unreliable for individuals.",
            "",
        ]
    )  # fmt: skip


def yaml_block(values: Mapping[str, str | Sequence[str]]) -> list[str]:
    """The front matter of a card; JSON's strings and lists are YAML's too."""
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---", ""]
