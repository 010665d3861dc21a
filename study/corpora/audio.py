"""Clips on disk: their size, and their waveform as the models want it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

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
    if not os.path.getsize(path):
        raise CorpusError(f"{path}: empty file")
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"{path}: unreadable ({error.error_string})") from error
    if info.frames == 0:
        raise CorpusError(f"{path}: holds no samples")
    return info.frames, info.samplerate


@dataclass(frozen=True)
class Clip:
    """What is known of a clip that was decoded once: samples a channel, rate in Hz, digest of its samples."""

    samples: int
    sample_rate: int
    digest: str


def inspect_clip(path: str) -> Clip:
    """Decode a clip to its end.

    Raises:
        CorpusError: ``path: reason`` where it is absent, empty, cut short, or holds samples that are no numbers.
    """
    waveform, rate = _decode(path)
    if not np.isfinite(waveform).all():
        raise CorpusError(f"{path}: holds samples that are not finite numbers")
    return Clip(len(waveform), rate, hashlib.blake2b(waveform.tobytes(), digest_size=8).hexdigest())


def read_audio(path: str) -> np.ndarray:
    """The waveform of a clip: float32, shape [samples], mono (mean of the channels), 16 kHz, full scale at 1.

    Raises:
        CorpusError: the clip is absent, empty or unreadable; the message is ``path: reason``.
    """
    waveform, rate = _decode(path)
    mono = waveform.mean(axis=1)
    return mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)


def _decode(path: str) -> tuple[np.ndarray, int]:
    """Float32 samples, shape [samples, channels], and the rate in Hz; raises as ``inspect_clip``."""
    samples, _ = clip_size(path)
    try:
        waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"{path}: unreadable ({error.error_string})") from error
    if len(waveform) < samples:
        raise CorpusError(f"{path}: cut short, {len(waveform)} of {samples} samples")
    return waveform, rate
