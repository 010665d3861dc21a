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
    """Return the README of an exported adapter.

    Args:
        finished: ``finished.json`` of the run.
        study: ``study.json``.
        base: the hub id or folder of the backbone.
        tables: tables of metrics as text, by split.
    """
    changed = [f"- `{key}`: {json.dumps(value, ensure_ascii=False)}" for key, value in differences(settings).items()]
    corpus = study["corpus"]
    counts = ", ".join(f"{split} {n:,}" for split, n in corpus["counts"].items())
    training = (
        f"Trained with seed {finished['seed']} for {finished['epochs_run']} epochs; this is epoch {finished['epoch']}, "
        "which has the highest W-F1 on dev."
        if finished["epochs_run"]
        else "Not trained: it does not change the backbone (zero-shot)."
    )
    figures = [line for split, text in tables.items() for line in (f"### {split}", "", "```", text, "```", "")]
    front = yaml_block({"base_model": base, "library_name": "peft", "tags": ["speech-emotion-recognition", "lora"]})
    return "\n".join(
        [
            *front,
            f"# Emotion recognition adapter for {base}",
            "",
            "LoRA matrices"
            + "".join(f" and the whole {part.replace('_', ' ')}" for part in settings.backbone.trainable)
            + " of a Qwen2-Audio that classifies the emotion of a speech clip (MELD's seven classes). " + training,
            "",
            "```python",
            "model = PeftModel.from_pretrained(Qwen2AudioForConditionalGeneration.from_pretrained(BASE), THIS_FOLDER)",
            "```",
            "",
            "`settings.json` holds the prompt and the label words of the training. Use the same ones: with other words "
            "the adapter is another classifier.",
            "",
            "## Settings that differ from the defaults",
            "",
            *(changed or ["None."]),
            "",
            "## Results",
            "",
            "Predictions are the most likely of the seven label words. All values are in percentage points. The gap "
            "(AVG) of a cell is the mean of |F − M| on TPR, FPR, W-F1 and accuracy.",
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
            "- The results are those of one seed on one corpus. At these sizes, a gap of a few points can be noise.",
            "- The epoch was selected on dev, so the results on dev are optimistic. Nothing was selected on test.",
            "- Genders are the corpus's annotations: female, male or unknown. Acted speech differs from felt emotion.",
            "- Do not use it for decisions about people: emotion recognition from voice is unreliable for individuals.",
            "",
        ]
    )  # fmt: skip


def yaml_block(values: Mapping[str, str | Sequence[str]]) -> list[str]:
    """Return the lines of a card's front matter. JSON strings and lists are valid YAML."""
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---", ""]
