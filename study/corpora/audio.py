"""Clips on disk: their size, and their waveform as the models want it."""

from __future__ import annotations

import os

import numpy as np
import soundfile
import soxr

from study.corpora.errors import CorpusError

SAMPLE_RATE = 16_000  # Hz, what Qwen2-Audio's feature extractor expects


def clip_size(path: str) -> tuple[int, int]:
    """(samples per channel, sample rate in Hz) from the header of a clip.

    Raises:
        CorpusError: ``path: reason`` where the clip is absent, empty or no audio file that libsndfile knows.
    """
    if not os.path.isfile(path):
        raise CorpusError(f"{path}: no such file")
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"{path}: unreadable ({error.error_string})") from error
    if info.frames == 0:
        raise CorpusError(f"{path}: holds no samples")
    return info.frames, info.samplerate


def read_audio(path: str) -> np.ndarray:
    """The waveform of a clip: float32, shape [samples], mono (mean of the channels), 16 kHz, full scale at 1.

    Raises:
        CorpusError: the clip is absent, empty or unreadable; the message is ``path: reason``.
    """
    clip_size(path)
    try:
        waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"{path}: unreadable ({error.error_string})") from error
    mono = waveform.mean(axis=1)
    return mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)
