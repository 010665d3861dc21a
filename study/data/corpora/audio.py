"""Check audio clips on disk and read their waveforms.

A clip is unusable if it is absent, empty, undecodable, silent, shorter than 0.1 s or truncated (detected for WAV, AIFF,
FLAC, MP3 and Ogg), or if it has non-finite samples. Readers skip unusable clips and count them, within limits. A clip
longer than 30 s is usable: the audio encoder gets its first 30 s. Every format of libsndfile is supported: WAV, FLAC,
MP3, Ogg Opus, Ogg Vorbis, AIFF and others.
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

SAMPLE_RATE = 16_000  # Hz, as Qwen2-Audio's feature extractor expects
MIN_SECONDS = 0.1  # no word is shorter
MAX_SECONDS = 30.0  # the limit of the audio encoder
SILENCE = 1e-4  # a clip whose amplitude stays below this (-80 dB of full scale) around its mean is silent
MAX_AMPLITUDE = 1e10  # in units of full scale; far above it, a float32 spectrum overflows
MIN_SAMPLE_RATE = 4_000  # Hz; speech is unintelligible below
UNKNOWN_LENGTH = 1 << 60  # samples
STREAMED = 0xFFFFFF00  # bytes; WAV files written to a pipe declare a length from here up
MAX_OGG_PAGE = 65_307  # bytes
# (first and third word of the file) -> (byte order of chunk lengths, name of the chunk that holds the samples)
_CHUNK_FORMATS: dict[tuple[bytes, bytes], tuple[Literal["little", "big"], bytes]] = {
    (b"RIFF", b"WAVE"): ("little", b"data"),
    (b"FORM", b"AIFF"): ("big", b"SSND"),
    (b"FORM", b"AIFC"): ("big", b"SSND"),
}
TARGET_LEVEL = -26.0  # dB of full scale, the usual active level of telephone speech (ITU-T P.56)


@dataclass(frozen=True)
class ClipInfo:
    """What decoding a clip found.

    Attributes:
        samples: number of samples per channel.
        sample_rate: in Hz.
        level: RMS of the mono signal in dB of full scale.
        digest: hash of the samples; equal for the same sound in another file.
    """

    samples: int
    sample_rate: int
    level: float
    digest: str

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate


def inspect_clip(path: str) -> ClipInfo:
    """Decode a whole clip and check it.

    Raises:
        CorpusError: the clip is unusable; the message is ``path: reason``.
    """
    waveform, rate = _decode(path)
    if not np.isfinite(waveform).all():
        raise CorpusError(f"{path}: contains samples that are not finite numbers")
    if np.abs(waveform).max() > MAX_AMPLITUDE:
        raise CorpusError(f"{path}: contains samples of {np.abs(waveform).max():.0e} times full scale")
    if rate < MIN_SAMPLE_RATE:
        raise CorpusError(f"{path}: sample rate {rate} Hz, below the minimum of {MIN_SAMPLE_RATE} Hz")
    seconds = len(waveform) / rate
    if seconds < MIN_SECONDS:
        raise CorpusError(f"{path}: {seconds:.3f} s long, below the minimum of {MIN_SECONDS} s")
    mono = waveform.mean(axis=1)
    if np.ptp(mono) < 2 * SILENCE:
        cancelled = np.ptp(waveform, axis=0).max() >= 2 * SILENCE
        raise CorpusError(f"{path}: {'its channels cancel each other out' if cancelled else 'silent'}")
    digest = hashlib.blake2b(waveform.tobytes(), digest_size=8).hexdigest()
    return ClipInfo(len(waveform), rate, _level(mono), digest)


def read_audio(path: str, loudness: str = "as_recorded") -> np.ndarray:
    """Return the waveform of a clip: float32, shape [samples], mono (mean of the channels), 16 kHz, full scale 1.

    Args:
        loudness: ``as_recorded``, or ``rms`` to scale the clip to an RMS of -26 dB of full scale.

    Raises:
        CorpusError: the clip is absent, empty or unreadable; the message is ``path: reason``.
    """
    waveform, rate = _decode(path)
    mono = waveform.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return mono * np.float32(10 ** ((TARGET_LEVEL - _level(mono)) / 20)) if loudness == "rms" else mono


def _level(mono: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(mono, dtype=np.float64))))


def _decode(path: str) -> tuple[np.ndarray, int]:
    """Return float32 samples, shape [samples, channels], and the rate in Hz; raise as ``read_audio`` does."""
    if not os.path.isfile(path):
        raise CorpusError(f"{path}: no such file")
    if not os.path.getsize(path):
        raise CorpusError(f"{path}: empty file")
    try:
        declared = soundfile.info(path).frames
        if declared > UNKNOWN_LENGTH:  # a FLAC file written to a pipe; libsndfile cannot read it without the length
            raise CorpusError(f"{path}: unreadable (its header does not declare a length; encode it again)")
        waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"{path}: unreadable ({error.error_string})") from error
    except TypeError as error:  # a .raw file does not declare its format
        raise CorpusError(f"{path}: unreadable ({error})") from error
    if not len(waveform):
        raise CorpusError(f"{path}: contains no samples")
    if len(waveform) < declared or _is_truncated(path):
        raise CorpusError(f"{path}: truncated after {len(waveform)} samples")
    return waveform, rate


def _is_truncated(path: str) -> bool:
    """Return whether a WAV, AIFF or Ogg file lacks its end, which libsndfile does not report."""
    with open(path, "rb") as file:
        head = file.read(12)
        size = os.fstat(file.fileno()).st_size
        if (head[:4], head[8:]) in _CHUNK_FORMATS:
            order, sound = _CHUNK_FORMATS[head[:4], head[8:]]
            while len(chunk := file.read(8)) == 8:
                length = int.from_bytes(chunk[4:], order)
                if chunk[:4] == sound:
                    return STREAMED > length > size - file.tell()
                file.seek(length + length % 2, os.SEEK_CUR)
        elif head[:4] == b"OggS":
            file.seek(max(0, size - MAX_OGG_PAGE))
            tail = file.read()
            page = tail[tail.rfind(b"OggS") :]
            is_last = len(page) > 27 and page[5] & 4  # the flag of a stream's last page
            return not is_last or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])
    return False
