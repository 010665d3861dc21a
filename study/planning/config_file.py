"""Settings from a JSON or TOML file: written by hand, a trial of a study, or the settings of a run."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.common.errors import SettingsError
from study.config.presets import on_backbone
from study.config.settings import Settings, flatten, parse
from study.planning.paths import absolute_backbone, absolute_corpus


def read_config(path: Path, backbone: str | None) -> Settings:
    """Read the settings of a file.

    Args:
        path: one of

            - JSON or TOML with settings by dotted names, nested names, or both. Other settings take their defaults,
              those of the tiny backbone unless another is named. A relative corpus path starts at the file's folder.
            - a trial of a study, ``STUDY/trials/00004.json``: the study's settings with the trial's hyperparameters.
            - the ``settings.json`` of a run or an adapter.
        backbone: value of ``--backbone``, if given; settings made for the tiny backbone change to its defaults
            (``study.config.presets.on_backbone``).

    Raises:
        SettingsError: the file cannot be read, or a setting is invalid; every error names the file and the setting.
    """
    try:
        tree = _read_tree(path)
        if "hyperparameters" in tree and "config_id" in tree:
            overrides, settings = tree["hyperparameters"], _read_tree(path.resolve().parent.parent / "study.json")
            base = parse(Settings, settings["settings"])
        elif isinstance(tree.get("settings"), Mapping):
            overrides, base = {}, parse(Settings, tree["settings"])
        else:
            overrides, base = flatten(tree), Settings()
            if "corpus.spec" in overrides:
                overrides["corpus.spec"] = absolute_corpus(str(overrides["corpus.spec"]), path.resolve().parent)
            backbone = backbone or absolute_backbone(str(overrides.pop("backbone.spec", "tiny")))
            overrides.pop("backbone.spec", None)
        return on_backbone(base, backbone or base.backbone.spec).with_overrides(overrides)
    except SettingsError as error:
        raise SettingsError([f"--config {path}: {message}" for message in error.errors]) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError([f"--config {path}: is neither settings nor a trial of a study ({error!r})"]) from error


def _read_tree(path: Path) -> Mapping[str, Any]:
    kind, load = ("TOML", tomllib.loads) if path.suffix == ".toml" else ("JSON", json.loads)
    try:
        tree = load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError([f"{path.name} cannot be read as {kind}: {error}"]) from error
    if not isinstance(tree, Mapping):
        raise SettingsError([f"{path.name} does not contain settings by name"])
    return tree
