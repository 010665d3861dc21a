"""Clips on disk: whether they can be used, and their waveform as the models want it.

A clip that is absent, empty, undecodable, silent, shorter than 0.1 s, cut short (as far as WAV, AIFF, FLAC, MP3 and Ogg
let one see), or that holds samples which are no numbers, cannot be used; readers leave such clips out and count them as
long as they are few. A long clip can be used:
the tower hears its first 30 s. Whatever libsndfile reads is read: WAV, FLAC, MP3, Ogg Opus and Vorbis, AIFF.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soundfile
import soxr

from study.common.errors import CorpusError

SAMPLE_RATE = 16_000  # Hz, what Qwen2-Audio's feature extractor expects
SHORTEST = 0.1  # seconds; no word is shorter
LONGEST = 30.0  # seconds, the tower's limit
SILENCE = 1e-4  # how far the samples of a clip without sound are from its middle at most, -80 dB of full scale
LOUDEST = 1e10  # full scales; much beyond, a spectrum in float32 overflows
LOWEST_RATE = 4_000  # Hz; below it is no speech
UNKNOWN_LENGTH = 1 << 60  # samples
STREAMED = 0xFFFFFF00  # a length from here up stands in WAVs that were written to a pipe
LARGEST_PAGE = 65_307  # bytes of an Ogg page
# (first and third word of the file) -> (order of the bytes of a length, name of the chunk that holds the samples)
_CHUNKED: dict[tuple[bytes, bytes], tuple[Literal["little", "big"], bytes]] = {
    (b"RIFF", b"WAVE"): ("little", b"data"),
    (b"FORM", b"AIFF"): ("big", b"SSND"),
    (b"FORM", b"AIFC"): ("big", b"SSND"),
}
LEVEL = -26.0  # dB of full scale, the usual active level of telephone speech (ITU-T P.56)


@dataclass(frozen=True)
class Clip:
    """What is known of a clip that was decoded once.

    Attributes:
        samples: a channel.
        sample_rate: in Hz.
        level: RMS of the mono signal in dB of full scale.
        digest: of its samples; the same sound in another file has the same one.
    """

    samples: int
    sample_rate: int
    level: float
    digest: str

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate


def inspect_clip(path: str) -> Clip:
    """Decode a clip to its end.

    Raises:
        CorpusError: ``path: reason`` where it cannot be used.
    """
    waveform, rate = _decode(path)
    if not np.isfinite(waveform).all():
        raise CorpusError(f"{path}: holds samples that are not finite numbers")
    if np.abs(waveform).max() > LOUDEST:
        raise CorpusError(f"{path}: holds samples of {np.abs(waveform).max():.0e} times full scale")
    if rate < LOWEST_RATE:
        raise CorpusError(f"{path}: a sampling rate of {rate} Hz, less than {LOWEST_RATE}")
    seconds = len(waveform) / rate
    if seconds < SHORTEST:
        raise CorpusError(f"{path}: {seconds:.3f} s long, less than {SHORTEST} s")
    mono = waveform.mean(axis=1)
    if np.ptp(mono) < 2 * SILENCE:
        cancelled = np.ptp(waveform, axis=0).max() >= 2 * SILENCE
        raise CorpusError(f"{path}: {'its channels cancel each other out' if cancelled else 'silent'}")
    digest = hashlib.blake2b(waveform.tobytes(), digest_size=8).hexdigest()
    return Clip(len(waveform), rate, _level(mono), digest)


def read_audio(path: str, loudness: str = "as_recorded") -> np.ndarray:
    """The waveform of a clip: float32, shape [samples], mono (mean of the channels), 16 kHz, full scale at 1.

    Args:
        loudness: ``as_recorded``, or ``rms``: one gain a clip brings its RMS to -26 dB of full scale.

    Raises:
        CorpusError: the clip is absent, empty or unreadable; the message is ``path: reason``.
    """
    waveform, rate = _decode(path)
    mono = waveform.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return mono * np.float32(10 ** ((LEVEL - _level(mono)) / 20)) if loudness == "rms" else mono


def _level(mono: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(mono, dtype=np.float64))))


def _decode(path: str) -> tuple[np.ndarray, int]:
    """Float32 samples, shape [samples, channels], and the rate in Hz; raises as ``read_audio``."""
    if not os.path.isfile(path):
        raise CorpusError(f"{path}: no such file")
    if not os.path.getsize(path):
        raise CorpusError(f"{path}: empty file")
    try:
        promised = soundfile.info(path).frames
        if promised > UNKNOWN_LENGTH:  # a FLAC from a pipe: libsndfile cannot read it without its length
            raise CorpusError(f"{path}: unreadable (its header does not say how long it is; encode it anew)")
        waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"{path}: unreadable ({error.error_string})") from error
    except TypeError as error:  # of a .raw file, which does not say what it holds
        raise CorpusError(f"{path}: unreadable ({error})") from error
    if not len(waveform):
        raise CorpusError(f"{path}: holds no samples")
    if len(waveform) < promised or _ends_early(path):
        raise CorpusError(f"{path}: cut short behind {len(waveform)} samples")
    return waveform, rate


def _ends_early(path: str) -> bool:
    """Whether a WAV, AIFF or Ogg file lacks its end, which libsndfile passes over in silence."""
    with open(path, "rb") as file:
        head = file.read(12)
        size = os.fstat(file.fileno()).st_size
        if (head[:4], head[8:]) in _CHUNKED:
            order, sound = _CHUNKED[head[:4], head[8:]]
            while len(chunk := file.read(8)) == 8:
                length = int.from_bytes(chunk[4:], order)
                if chunk[:4] == sound:
                    return STREAMED > length > size - file.tell()
                file.seek(length + length % 2, os.SEEK_CUR)
        elif head[:4] == b"OggS":
            file.seek(max(0, size - LARGEST_PAGE))
            tail = file.read()
            page = tail[tail.rfind(b"OggS") :]
            last = len(page) > 27 and page[5] & 4  # the flag of a stream's last page
            return not last or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])
    return False
