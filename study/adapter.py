"""The trained part of a run as a standard PEFT adapter, and the way back from it to a model that scores.

The folder holds ``adapter_config.json`` and ``adapter_model.safetensors`` (PEFT's own), ``settings.json`` (every
setting of the run) and ``README.md`` (its card). ``PeftModel.from_pretrained(base, folder)`` needs no more: modules
trained whole are in it as PEFT's ``modules_to_save``, though in training they are not wrapped, which would keep a
second copy of the tower.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as bytes_of
from torch import Tensor
from transformers import Qwen2AudioProcessor

from study.backbone import EmotionModel, backbone_hash, load_base, load_processor
from study.batching import answer_ids
from study.records import StudyFolder
from study.settings import Settings, SettingsError, differences, parse

MODULES = {"projector": "multi_modal_projector", "tower": "audio_tower"}
CONFIG, WEIGHTS, SETTINGS, CARD = "adapter_config.json", "adapter_model.safetensors", "settings.json", "README.md"


def write_adapter(
    folder: StudyFolder, place: str, weights: Mapping[str, Tensor], lora: LoraConfig, settings: Settings, base: str
) -> None:
    """Keep an adapter; its configuration is written last, and without it PEFT reads nothing.

    Args:
        place: the directory inside the study folder.
        weights: by their names in ``EmotionModel``: LoRA matrices and every parameter of the modules trained whole.
        base: hub id or folder of the backbone.
    """
    # "peft_model.base_model....lora_A.default.weight" is "base_model....lora_A.weight" to PEFT
    tensors = {
        name.removeprefix("peft_model.").replace(".default.", "."): value.contiguous()
        for name, value in weights.items()
    }
    config = copy.copy(lora)
    config.modules_to_save = [MODULES[part] for part in settings.backbone.trainable] or None
    config.base_model_name_or_path = base
    config.inference_mode = True
    folder.write_bytes(f"{place}/{WEIGHTS}", bytes_of(tensors, metadata={"format": "pt"}))
    record = {"settings": settings.model_dump(mode="json"), "backbone": {"spec": base, "hash": backbone_hash(base)}}
    folder.write_json(f"{place}/{SETTINGS}", record)
    with tempfile.TemporaryDirectory() as local:
        config.save_pretrained(local)
        folder.write_bytes(f"{place}/{CONFIG}", Path(local, CONFIG).read_bytes())


def read_adapter(place: Path) -> tuple[Settings, dict[str, str]]:
    """The settings of an adapter, and the ``spec`` and ``hash`` of its backbone.

    Raises:
        SettingsError: the folder holds no adapter of ``write_adapter``, or its files contradict each other.
    """
    for name in (CONFIG, WEIGHTS, SETTINGS):
        if not (place / name).is_file():
            raise SettingsError([f"--adapter {place}: has no {name}; give the adapter folder that train.py named"])
    try:
        record = json.loads((place / SETTINGS).read_text(encoding="utf-8"))
        config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        settings = parse(Settings, record["settings"])
        backbone = {name: str(record["backbone"][name]) for name in ("spec", "hash")}
        held = {"r": settings.backbone.lora_rank, "lora_alpha": settings.backbone.lora_alpha}
        faults = [
            f"--adapter {place}: {CONFIG} has {key} {config[key]}, {SETTINGS} {value}; export it again"
            for key, value in held.items()
            if config[key] != value
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            [f"--adapter {place}: {SETTINGS} or {CONFIG} cannot be read ({error!r}); export it again"]
        ) from error
    if faults:
        raise SettingsError(faults)
    return settings, backbone


def load_adapter(place: Path, source: str, device: torch.device) -> tuple[EmotionModel, Qwen2AudioProcessor]:
    """A model that scores, from an adapter of ``write_adapter``.

    Args:
        source: hub id or folder of its backbone.

    Raises:
        SettingsError: the folder holds no such adapter, or its backbone cannot be loaded or is another one.
    """
    settings, trained_on = read_adapter(place)
    processor = load_processor(source)
    both_folders_or_neither = source.startswith("/") == trained_on["spec"].startswith("/")
    if both_folders_or_neither and backbone_hash(source) != trained_on["hash"]:  # a hub id's is of its commit
        raise SettingsError(
            [f"--backbone {source}: its content is not that of {trained_on['spec']}, on which {place} was trained"]
        )
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    base = load_base(source, settings.backbone, dtype)
    try:
        held = load_file(place / WEIGHTS)
        peft_model = PeftModel.from_pretrained(base, str(place))
        lacking = set(get_peft_model_state_dict(peft_model)) - set(held)  # PEFT would only warn
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise SettingsError(
            [f"--adapter {place}: {WEIGHTS} cannot be put on {source} ({error!r:.300}); export it again"]
        ) from error
    if lacking:
        raise SettingsError([f"--adapter {place}: {WEIGHTS} lacks {sorted(lacking)[:3]}; export it again"])
    if broken := sorted(name for name, value in held.items() if not value.isfinite().all()):
        raise SettingsError([f"--adapter {place}: {WEIGHTS} holds values that are no numbers in {broken[:3]}"])
    model = EmotionModel(peft_model, answer_ids(settings.prompt, processor), processor.tokenizer.pad_token_id)
    return model.to(device=device, dtype=dtype).eval(), processor


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
