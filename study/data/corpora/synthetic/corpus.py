"""The synthetic corpus: synthetic speech with known gaps, written in the layout of MELD-ST and read by its reader.

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
from study.data.corpora.label_maps import SPLITS
from study.data.corpora.meld_st import PAIRS, list_meld_st
from study.data.corpora.speaker_gender import GENDER_FILE
from study.data.corpora.synthetic.dialogues import FULL, Size, Utterance, write_dialogues
from study.data.corpora.synthetic.espeak import SAMPLE_RATE, Job, synthesise
from study.data.corpora.synthetic.planted_gaps import PlantedGap, select_gaps

VERSION = 1  # raise it with every change of the bytes
VOICES = {"en": "en-us", "de": "de", "ja": "ja"}
SENTIMENT = dict(zip(EMOTIONS, ("neutral", "positive", "positive", *["negative"] * 4), strict=True))
DIALOGUES_PER_EPISODE = 12
SECONDS_PER_TURN = 4.0  # of the invented time stamps

# A few clips are listed but absent, as in MELD-ST: (pair, folder, split, gender). The other pair has the English one.
ABSENT = (
    ("ENG_DEU", "DEU", "train", "female"),
    ("ENG_JPN", "JPN", "dev", "male"),
    ("ENG_DEU", "ENG", "test", "female"),
)


def list_synthetic(cache: Path, planted_gaps: tuple[str, ...], seed: int = 0, size: Size = FULL) -> Listing:
    """List the synthetic corpus; write it under ``cache`` first if it is not there.

    Its own split already separates speakers, sentences and parallel utterances, so no other split is offered.

    Args:
        planted_gaps: names of planted gaps (``planted_gaps.PLANTED_GAPS``); none gives the same corpus without gaps.

    Raises:
        CorpusError: a planted gap is unknown, espeakng-loader is not installed, or the cache cannot be written.
    """
    gaps = select_gaps(planted_gaps)
    digest = hashlib.sha256(json.dumps([VERSION, seed, [gap.name for gap in gaps], asdict(size)]).encode()).hexdigest()
    label = "+".join(gap.name for gap in gaps) or "no-gaps"
    root = Path(os.path.abspath(cache)) / f"synthetic-{label}-{digest[:8]}"
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{root}.lock"):
            if not (root / "corpus.json").exists():
                for leftover in (root, *root.parent.glob(f"{root.name}.*.tmp")):  # of a process that was killed
                    shutil.rmtree(leftover, ignore_errors=True)
                write_corpus(root, planted_gaps, seed, size)
    except (OSError, RuntimeError) as error:
        raise CorpusError(f"cannot write {root}: {error}. Free some space, or choose another cache folder.") from error
    try:
        return list_meld_st(root, name="synthetic", notes=(describe_gaps(gaps),))
    except CorpusError as error:
        raise CorpusError(f"{error} Or remove {root}; the next start writes it again.") from error


def describe_gaps(gaps: tuple[PlantedGap, ...]) -> str:
    """Return the sentence that every report on this corpus shows."""
    if not gaps:
        return "Synthetic speech without planted gaps. It says nothing about people."
    descriptions = "; ".join(gap.description for gap in gaps)
    return f"Synthetic speech with planted gaps ({descriptions}). It says nothing about people."


def write_corpus(root: Path, planted_gaps: tuple[str, ...], seed: int = 0, size: Size = FULL) -> str:
    """Write the corpus to ``root``, which must not exist, and return the SHA-256 of all its files.

    The files are written to a temporary folder that is renamed at the end, so ``root`` is complete or absent. It also
    gets a ``corpus.json`` with version, seed, planted gaps, size and that hash.

    Raises:
        CorpusError: a planted gap is unknown or espeakng-loader is not installed.
        OSError, RuntimeError: ``root`` exists, the disk is full, or it cannot be written.
    """
    gaps = select_gaps(planted_gaps)
    if importlib.util.find_spec("espeakng_loader") is None:
        raise CorpusError("the synthetic corpus needs espeakng-loader: pip install '.[synthetic]'.")
    if root.exists():
        raise FileExistsError(f"{root} exists already")
    temporary = root.with_name(f"{root.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        utterances = write_dialogues(seed, size)
        dropped = _dropped_utterances(utterances, gaps, seed)
        _write_pairs(temporary, utterances, dropped, {(gap.language, gap.gender): gap.prosody_factor for gap in gaps})
        digest = _hash_files(temporary)
        about = {"version": VERSION, "seed": seed, "planted_gaps": [gap.name for gap in gaps], "size": asdict(size)}
        (temporary / "corpus.json").write_text(json.dumps({**about, "sha256": digest}, indent=1) + "\n")
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest


def _dropped_utterances(utterances: list[Utterance], gaps: tuple[PlantedGap, ...], seed: int) -> dict[str, set[int]]:
    """Return language -> indices of the training utterances that its pair omits."""
    dropped: dict[str, set[int]] = {language: set() for language in LANGUAGES}
    for gap in gaps:
        for index, (emotion, share) in enumerate(zip(EMOTIONS, gap.train_shares, strict=True)):
            group = [
                i for i, u in enumerate(utterances)
                if (u.character.split, u.character.gender, u.emotion) == ("train", gap.gender, emotion)
            ]  # fmt: skip
            order = np.random.default_rng([seed, index]).permutation(group)
            dropped[gap.language].update(order[max(1, round(share * len(group))) :].tolist())
    return dropped


def _write_pairs(
    root: Path,
    utterances: list[Utterance],
    dropped: dict[str, set[int]],
    prosody_factors: dict[tuple[str, str], float],
) -> None:
    """Write clips and CSV files of both pairs, and the genders of the characters."""
    splits = pd.Series([utterance.character.split for utterance in utterances])
    ids = splits.groupby(splits).cumcount().tolist()  # of the clips; independent of what is dropped
    clips: dict[tuple[str, int], list[Path]] = {}
    for pair in PAIRS:
        for folder, language in (("ENG", "en"), (pair.language_folder, pair.language)):
            for split in SPLITS:
                (root / pair.folder / folder / split).mkdir(parents=True)
            absent = {
                _first_of_group(utterances, split, gender)
                for absent_pair, absent_folder, split, gender in ABSENT
                if (absent_pair, absent_folder) == (pair.folder, folder)
            }
            for i, split in enumerate(splits):
                if i not in dropped[pair.language] and i not in absent:
                    path = root / pair.folder / folder / split / f"{split}_{ids[i]}.wav"
                    clips.setdefault((language, i), []).append(path)
    lengths = _write_clips(utterances, clips, prosody_factors)
    for pair in PAIRS:
        for split in SPLITS:
            rows = [
                _csv_row(utterance, ids[i], pair.column, pair.language, lengths["en", i], lengths[pair.language, i])
                for i, utterance in enumerate(utterances)
                if splits[i] == split and i not in dropped[pair.language]
            ]
            pd.DataFrame(rows).to_csv(root / pair.csv(split), index=False, lineterminator="\n")
    genders = sorted({(u.character.name, u.character.gender) for u in utterances})
    pd.DataFrame(genders, columns=["speaker", "gender"]).to_csv(root / GENDER_FILE, index=False, lineterminator="\n")


def _first_of_group(utterances: list[Utterance], split: str, gender: str) -> int:
    return next(i for i, u in enumerate(utterances) if (u.character.split, u.character.gender) == (split, gender))


def _write_clips(
    utterances: list[Utterance],
    clips: dict[tuple[str, int], list[Path]],
    prosody_factors: dict[tuple[str, str], float],
) -> dict[tuple[str, int], int]:
    """Synthesise every utterance in every language and return (language, utterance) -> length in samples.

    Each (language, gender) group has its own process, which also speaks the dropped utterances. So a planted gap in one
    group cannot change the bytes of another.
    """

    def synthesise_group(group: tuple[str, str]) -> dict[tuple[str, int], int]:
        language, gender = group
        indices = [i for i, utterance in enumerate(utterances) if utterance.character.gender == gender]
        jobs: list[Job] = []
        for i in indices:
            paths = clips.get((language, i), [])
            utterance = utterances[i]
            jobs.append(
                {
                    "voice": f"{VOICES[language]}+{utterance.character.variant}",
                    "text": getattr(utterance.sentence, language),
                    "path": str(paths[0]) if paths else None,
                    **utterance.prosody(language, prosody_factors.get(group, 1.0)),
                }
            )
        lengths = synthesise(jobs)
        for i in indices:
            paths = clips.get((language, i), [])
            for other in paths[1:]:
                _link_or_copy(paths[0], other)
        return {(language, i): length for i, length in zip(indices, lengths, strict=True)}

    groups = [(language, gender) for language in VOICES for gender in GENDERS]
    with ThreadPoolExecutor(max_workers=min(len(groups), os.cpu_count() or 1)) as pool:
        return {key: length for lengths in pool.map(synthesise_group, groups) for key, length in lengths.items()}


def _link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file; copy it if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _csv_row(
    utterance: Utterance, number: int, column: str, language: str, english: int, translated: int
) -> dict[str, str | int]:
    """Return a CSV row with the columns of MELD-ST. Lengths are in samples; the time stamps are invented."""
    begin = utterance.number * SECONDS_PER_TURN
    row: dict[str, str | int] = {
        "id": number,
        "dia_id": utterance.dialogue,
        "utt_id": utterance.number,
        "emotion": utterance.emotion,
        "sentiment": SENTIMENT[utterance.emotion],
        "English": utterance.sentence.en,
        column: getattr(utterance.sentence, language),
        "season": 1,
        "episode": utterance.dialogue // DIALOGUES_PER_EPISODE + 1,
        "speaker": utterance.character.name,
    }
    for name, length in (("English", english), (column, translated)):
        row[f"{name}_begin_time"] = f"{begin:.3f}"
        row[f"{name}_end_time"] = f"{begin + length / SAMPLE_RATE:.3f}"
    return row


def _hash_files(root: Path) -> str:
    """Return the SHA-256 of the names and bytes of all files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(root).as_posix().encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
