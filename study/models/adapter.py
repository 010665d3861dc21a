"""Write the trained weights of a run as a standard PEFT adapter, and load a model from one.

The folder holds ``adapter_config.json`` and ``adapter_model.safetensors`` (PEFT's own files), ``settings.json`` (every
setting of the run) and ``README.md`` (the model card). ``PeftModel.from_pretrained(base, folder)`` loads it. Modules
that are trained whole are stored as PEFT's ``modules_to_save``. In training they are not wrapped that way, which would
hold a second copy of the audio encoder in memory.
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
    folder: StudyFolder, directory: str, weights: Mapping[str, Tensor], lora: LoraConfig, settings: Settings, base: str
) -> None:
    """Write an adapter. Its configuration is written last, so that PEFT does not load an incomplete adapter.

    Args:
        directory: inside the study folder.
        weights: by name in ``EmotionModel``: LoRA matrices, and all parameters of the modules that are trained whole.
        base: hub id or folder of the backbone.
    """
    # "peft_model.base_model....lora_A.default.weight" is called "base_model....lora_A.weight" by PEFT
    tensors = {
        name.removeprefix("peft_model.").replace(".default.", "."): value.contiguous()
        for name, value in weights.items()
    }
    config = copy.copy(lora)
    config.modules_to_save = [MODULES[part] for part in settings.backbone.trainable] or None
    config.base_model_name_or_path = base
    config.inference_mode = True
    folder.write_bytes(f"{directory}/{WEIGHTS}", bytes_of(tensors, metadata={"format": "pt"}))
    record = {"settings": settings.model_dump(mode="json"), "backbone": {"spec": base, "hash": backbone_hash(base)}}
    folder.write_json(f"{directory}/{SETTINGS}", record)
    with tempfile.TemporaryDirectory() as local:
        config.save_pretrained(local)
        folder.write_bytes(f"{directory}/{CONFIG}", Path(local, CONFIG).read_bytes())


def read_adapter(path: Path) -> tuple[Settings, dict[str, str]]:
    """Return the settings of an adapter, and the ``spec`` and ``hash`` of its backbone.

    Raises:
        SettingsError: the folder holds no adapter written by ``write_adapter``, or its files contradict each other.
    """
    for name in (CONFIG, WEIGHTS, SETTINGS):
        if not (path / name).is_file():
            raise SettingsError([f"--adapter {path}: has no {name}; use the adapter folder that train.py printed"])
    try:
        record = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        settings = parse(Settings, record["settings"])
        backbone = {name: str(record["backbone"][name]) for name in ("spec", "hash")}
        expected = {"r": settings.backbone.lora_rank, "lora_alpha": settings.backbone.lora_alpha}
        errors = [
            f"--adapter {path}: {CONFIG} has {key} {config[key]}, {SETTINGS} {value}; export it again"
            for key, value in expected.items()
            if config[key] != value
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            [f"--adapter {path}: {SETTINGS} or {CONFIG} cannot be read ({error!r}); export it again"]
        ) from error
    if errors:
        raise SettingsError(errors)
    return settings, backbone


def load_adapter(path: Path, source: str, device: torch.device) -> tuple[EmotionModel, Qwen2AudioProcessor]:
    """Return the model of an adapter, in evaluation mode, and its processor.

    Args:
        path: the folder written by ``write_adapter``.
        source: hub id or folder of its backbone.

    Raises:
        SettingsError: the folder holds no such adapter, or the backbone cannot be loaded or is not the adapter's.
    """
    settings, trained_on = read_adapter(path)
    processor = load_processor(source)
    both_folders_or_neither = source.startswith("/") == trained_on["spec"].startswith("/")
    if both_folders_or_neither and backbone_hash(source) != trained_on["hash"]:  # a hub id is hashed by its commit
        raise SettingsError(
            [f"--backbone {source}: its content differs from {trained_on['spec']}, on which {path} was trained"]
        )
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    base = load_base(source, settings.backbone, dtype)
    try:
        weights = load_file(path / WEIGHTS)
        peft_model = PeftModel.from_pretrained(base, str(path))
        missing = set(get_peft_model_state_dict(peft_model)) - set(weights)  # PEFT would only warn
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise SettingsError(
            [f"--adapter {path}: {WEIGHTS} cannot be loaded onto {source} ({error!r:.300}); export it again"]
        ) from error
    if missing:
        raise SettingsError([f"--adapter {path}: {WEIGHTS} lacks {sorted(missing)[:3]}; export it again"])
    if not_finite := sorted(name for name, value in weights.items() if not value.isfinite().all()):
        raise SettingsError(
            [f"--adapter {path}: {WEIGHTS} holds NaN or infinite values in {not_finite[:3]}; train again"]
        )
    model = EmotionModel(peft_model, answer_ids(settings.prompt, processor), processor.tokenizer.pad_token_id)
    return model.to(device=device, dtype=dtype).eval(), processor
