"""The synthetic corpus: synthetic speech with known gaps, written in MELD-ST's own layout and read by its reader.

It tests the pipeline and the statistics, since its gaps are known. It says nothing about people.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from study.common.errors import CorpusError
from study.common.groups import EMOTIONS, GENDERS, LANGUAGES
from study.data.corpora.corpus import Listing
from study.data.corpora.meld_st import CSV_SPLIT, PAIRS, list_meld_st
from study.data.corpora.speaker_gender import GENDER_FILE
from study.data.corpora.synthetic.dialogues import FULL, Size, Utterance, write_dialogues
from study.data.corpora.synthetic.espeak import SAMPLE_RATE, synthesise
from study.data.corpora.synthetic.planted_gaps import PlantedGap, chosen

VERSION = 1  # raised with every change of the bytes
VOICE = {"en": "en-us", "de": "de", "ja": "ja"}
SENTIMENT = dict(zip(EMOTIONS, ("neutral", "positive", "positive", *["negative"] * 4), strict=True))
DIALOGUES_AN_EPISODE = 12
SECONDS_A_TURN = 4.0  # of the made-up time stamps

# A few clips are listed but absent, as in the real corpus: (pair, folder, language, split, gender). The English one
# stands in the other pair too.
ABSENT = (
    ("ENG_DEU", "DEU", "train", "female"),
    ("ENG_JPN", "JPN", "dev", "male"),
    ("ENG_DEU", "ENG", "test", "female"),
)


def list_synthetic(cache: Path, planted_gaps: tuple[str, ...], seed: int = 0, size: Size = FULL) -> Listing:
    """The synthetic corpus, written under ``cache`` on the first call and read from there ever after.

    Its own split holds speakers, sentences and parallel utterances apart, so it is never divided otherwise.

    Args:
        plants: names of the planted gaps that are on (see ``plants.PLANTS``); none gives the plant-free twin.

    Raises:
        CorpusError: a plant is unknown, espeakng-loader is not installed, or the cache cannot be written.
    """
    rows = chosen(planted_gaps)
    digest = hashlib.sha256(json.dumps([VERSION, seed, [p.name for p in rows], asdict(size)]).encode()).hexdigest()
    label = "+".join(planted_gap.name for planted_gap in rows) or "twin"
    root = Path(os.path.abspath(cache)) / f"synthetic-{label}-{digest[:8]}"
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{root}.lock"):
            if not (root / "corpus.json").exists():
                for leftover in (root, *root.parent.glob(f"{root.name}.*.tmp")):  # of a process that was killed
                    shutil.rmtree(leftover, ignore_errors=True)
                write(root, planted_gaps, seed, size)
    except (OSError, RuntimeError) as error:
        raise CorpusError(f"cannot write {root}: {error}. Free some space, or choose another cache folder.") from error
    try:
        return list_meld_st(root, name="synthetic", notes=(note(rows),))
    except CorpusError as error:
        raise CorpusError(f"{error} Or remove {root}: it is then written anew.") from error


def note(planted_gaps: tuple[PlantedGap, ...]) -> str:
    """The sentence that every report on this corpus shows."""
    if not planted_gaps:
        return "Synthetic speech without planted gaps: no evidence about people."
    what = "; ".join(planted_gap.what for planted_gap in planted_gaps)
    return f"Synthetic speech with planted gaps ({what}): no evidence about people."


def write(root: Path, planted_gaps: tuple[str, ...], seed: int = 0, size: Size = FULL) -> str:
    """Write the corpus to ``root`` (which must not exist) and return the SHA-256 over all its files.

    Everything is written aside and renamed at the end, so ``root`` is whole or absent. ``corpus.json`` beside the
    pairs holds version, seed, plants, size and that hash.

    Raises:
        CorpusError: a plant is unknown or espeakng-loader is not installed.
        OSError, RuntimeError: ``root`` exists, or the disk is full or cannot be written.
    """
    rows = chosen(planted_gaps)
    if importlib.util.find_spec("espeakng_loader") is None:
        raise CorpusError("the synthetic corpus needs espeakng-loader: pip install '.[synthetic]'.")
    if root.exists():
        raise FileExistsError(f"{root} exists already")
    aside = root.with_name(f"{root.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        utterances = write_dialogues(seed, size)
        dropped = _dropped(utterances, rows, seed)
        _write_pairs(aside, utterances, dropped, {(p.language, p.gender): p.cue for p in rows})
        digest = _hash_files(aside)
        about = {"version": VERSION, "seed": seed, "planted_gaps": [p.name for p in rows], "size": asdict(size)}
        (aside / "corpus.json").write_text(json.dumps({**about, "sha256": digest}, indent=1) + "\n")
        aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return digest


def _dropped(utterances: list[Utterance], planted_gaps: tuple[PlantedGap, ...], seed: int) -> dict[str, set[int]]:
    """Language -> indices of the training utterances that its pair leaves out."""
    dropped: dict[str, set[int]] = {language: set() for language in LANGUAGES}
    for planted_gap in planted_gaps:
        for place, (emotion, share) in enumerate(zip(EMOTIONS, planted_gap.kept, strict=True)):
            group = [
                i for i, u in enumerate(utterances)
                if (u.character.split, u.character.gender, u.emotion) == ("train", planted_gap.gender, emotion)
            ]  # fmt: skip
            order = np.random.default_rng([seed, place]).permutation(group)
            dropped[planted_gap.language].update(order[max(1, round(share * len(group))) :].tolist())
    return dropped


def _write_pairs(
    root: Path, utterances: list[Utterance], dropped: dict[str, set[int]], cues: dict[tuple[str, str], float]
) -> None:
    """Clips and CSV files of both pairs, and the genders of the characters."""
    splits = pd.Series([utterance.character.split for utterance in utterances])
    numbers = splits.groupby(splits).cumcount().tolist()  # of the clips; the same whatever is dropped
    clips: dict[tuple[str, int], list[Path]] = {}
    for pair, _, _, folder, language in PAIRS:
        for side, spoken in (("ENG", "en"), (folder, language)):
            for split in CSV_SPLIT:
                (root / pair / side / split).mkdir(parents=True)
            absent = {_first_of(utterances, *group) for where, name, *group in ABSENT if (where, name) == (pair, side)}
            for i, split in enumerate(splits):
                if i not in dropped[language] and i not in absent:
                    clips.setdefault((spoken, i), []).append(root / pair / side / split / f"{split}_{numbers[i]}.wav")
    lengths = _write_clips(utterances, clips, cues)
    for pair, prefix, column, _, language in PAIRS:
        for split, name in CSV_SPLIT.items():
            rows = [
                _row(utterance, numbers[i], column, language, lengths["en", i], lengths[language, i])
                for i, utterance in enumerate(utterances)
                if splits[i] == split and i not in dropped[language]
            ]
            pd.DataFrame(rows).to_csv(root / pair / f"{prefix}_{name}.csv", index=False, lineterminator="\n")
    genders = sorted({(u.character.name, u.character.gender) for u in utterances})
    pd.DataFrame(genders, columns=["speaker", "gender"]).to_csv(root / GENDER_FILE, index=False, lineterminator="\n")


def _first_of(utterances: list[Utterance], split: str, gender: str) -> int:
    return next(i for i, u in enumerate(utterances) if (u.character.split, u.character.gender) == (split, gender))


def _write_clips(
    utterances: list[Utterance], clips: dict[tuple[str, int], list[Path]], cues: dict[tuple[str, str], float]
) -> dict[tuple[str, int], int]:
    """Synthesise every utterance in every language and return the lengths in samples.

    Each (language, gender) has a process of its own that speaks all its utterances, the dropped ones too: so what a
    plant does to one group cannot reach the bytes of another.
    """

    def speak(block: tuple[str, str]) -> dict[tuple[str, int], int]:
        language, gender = block
        spoken = [i for i, utterance in enumerate(utterances) if utterance.character.gender == gender]
        jobs = []
        for i in spoken:
            paths = clips.get((language, i), [])
            utterance = utterances[i]
            jobs.append(
                {
                    "voice": f"{VOICE[language]}+{utterance.character.variant}",
                    "text": getattr(utterance.sentence, language),
                    "path": str(paths[0]) if paths else None,
                    **utterance.prosody(language, cues.get(block, 1.0)),
                }
            )
        lengths = synthesise(jobs)
        for i in spoken:
            paths = clips.get((language, i), [])
            for other in paths[1:]:
                _link(paths[0], other)
        return {(language, i): length for i, length in zip(spoken, lengths, strict=True)}

    blocks = [(language, gender) for language in VOICE for gender in GENDERS]
    with ThreadPoolExecutor(max_workers=min(len(blocks), os.cpu_count() or 1)) as pool:
        return {key: length for lengths in pool.map(speak, blocks) for key, length in lengths.items()}


def _link(first: Path, other: Path) -> None:
    """The same clip under a second name; a copy where the file system has no hard links."""
    try:
        os.link(first, other)
    except OSError:
        shutil.copyfile(first, other)


def _row(utterance: Utterance, number: int, column: str, language: str, english: int, translated: int) -> dict:
    """One row of a CSV with MELD-ST's own columns; lengths are in samples, and the time stamps are made up."""
    begin = utterance.number * SECONDS_A_TURN
    row = {
        "id": number,
        "dia_id": utterance.dialogue,
        "utt_id": utterance.number,
        "emotion": utterance.emotion,
        "sentiment": SENTIMENT[utterance.emotion],
        "English": utterance.sentence.en,
        column: getattr(utterance.sentence, language),
        "season": 1,
        "episode": utterance.dialogue // DIALOGUES_AN_EPISODE + 1,
        "speaker": utterance.character.name,
    }
    for name, length in (("English", english), (column, translated)):
        row[f"{name}_begin_time"] = f"{begin:.3f}"
        row[f"{name}_end_time"] = f"{begin + length / SAMPLE_RATE:.3f}"
    return row


def _hash_files(root: Path) -> str:
    """SHA-256 over the names and bytes of all files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(root).as_posix().encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
