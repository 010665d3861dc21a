"""Settings from a file: one configuration, written by hand or found by a study."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.common.errors import SettingsError
from study.config.presets import on_backbone
from study.config.settings import Settings, flatten, parse
from study.planning.paths import resolved, resolved_backbone


def read_config(path: Path, backbone: str | None) -> Settings:
    """The settings that a file holds.

    It is JSON or TOML with settings by their dotted names, nested, or both, the others being the defaults (those for
    the tiny backbone, unless another is named, as without a file); a corpus is looked for beside the file. Or it is a
    trial of a study, ``STUDY/trials/00004.json``: then the study's settings with the trial's knobs. Or it is the
    ``settings.json`` of a run or an adapter.

    Args:
        backbone: what ``--backbone`` says, if anything. Settings made for the tiny backbone are then the defaults
            (``study.config.presets.on_backbone``).

    Raises:
        SettingsError: it cannot be read, or a setting is faulty; the message names the file and every knob.
    """
    try:
        tree = _tree(path)
        if "hyperparameters" in tree and "config_id" in tree:
            study = _tree(path.resolve().parent.parent / "study.json")
            settings = parse(Settings, study["settings"])
            return on_backbone(settings, backbone or settings.backbone.spec).with_overrides(tree["hyperparameters"])
        if isinstance(tree.get("settings"), Mapping):
            settings = parse(Settings, tree["settings"])
            return on_backbone(settings, backbone or settings.backbone.spec)
        overrides = flatten(tree)
        if "corpus.spec" in overrides:
            overrides["corpus.spec"] = resolved(str(overrides["corpus.spec"]), path.resolve().parent)
        spec = backbone or resolved_backbone(str(overrides.get("backbone.spec", "tiny")))
        return on_backbone(Settings(), spec).with_overrides({**overrides, "backbone.spec": spec})
    except SettingsError as error:
        raise SettingsError([f"--config {path}: {message}" for message in error.errors]) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError([f"--config {path}: is no settings file, nor a trial of a study ({error!r})"]) from error


def _tree(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(
            [f"{path.name} cannot be read as {'TOML' if path.suffix == '.toml' else 'JSON'}: {error}"]
        ) from error
    if not isinstance(tree, Mapping):
        raise SettingsError([f"{path.name} holds no settings by name"])
    return tree
