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
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as bytes_of
from torch import Tensor
from transformers import Qwen2AudioProcessor

from study.common.errors import SettingsError
from study.config.settings import Settings, parse
from study.data.examples import answer_ids
from study.models.pretrained import backbone_hash, load_base, load_processor
from study.models.qwen2_audio import EmotionModel
from study.storage.study_folder import StudyFolder

MODULES = {"projector": "multi_modal_projector", "audio_encoder": "audio_tower"}
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
        errors = [
            f"--adapter {place}: {CONFIG} has {key} {config[key]}, {SETTINGS} {value}; export it again"
            for key, value in held.items()
            if config[key] != value
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            [f"--adapter {place}: {SETTINGS} or {CONFIG} cannot be read ({error!r}); export it again"]
        ) from error
    if errors:
        raise SettingsError(errors)
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
