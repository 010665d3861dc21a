"""Run espeak-ng as a separate program: JSON lines on standard input, 16 kHz PCM files as output.

espeak-ng keeps state between utterances. Its bytes are reproducible only in a new process that gets the same utterances
in the same order. ``synthesise`` starts such a process with this file as its program, so this file imports nothing of
the project.

An input line is ``{"voice", "text", "pitch", "range", "rate", "level", "path"}``. If the path is null, the utterance is
synthesised (which updates the state) but not written. An output line is the number of samples.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import wave
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soxr

SAMPLE_RATE = 16_000
_SEED = 1
# values of speak_lib.h
_SYNCHRONOUS, _CHARS_UTF8, _RATE, _PITCH, _RANGE = 2, 1, 1, 3, 4

Job = dict[str, Any]
"""``voice`` (such as ``de+f2``), ``text``, ``pitch`` and ``range`` (0 to 99; 50 is the voice's own), ``rate`` (words
per minute), ``level`` (RMS of the clip in dB of full scale) and ``path`` (or None)."""


def synthesise(jobs: Sequence[Job]) -> list[int]:
    """Write one clip per job, all in one new process, and return their lengths in samples.

    Raises:
        RuntimeError: the process failed; the message ends with the last line of its standard error.
    """
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    # -P: do not make the folder of this file importable
    done = subprocess.run(
        [sys.executable, "-P", os.path.abspath(__file__)], input=lines, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode != 0:
        last_line = done.stderr.strip().rpartition("\n")[2]  # of a traceback: the exception
        raise RuntimeError(f"espeak-ng failed with exit status {done.returncode}: {last_line}")
    return [int(count) for count in done.stdout.split()]


def open_espeak() -> Callable[[Job], np.ndarray]:
    """Load espeak-ng into this process and return a function from a job to its int16 waveform [samples] at 16 kHz."""
    import espeakng_loader  # an optional dependency, which only the program needs

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    native_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(espeakng_loader.get_data_path()), 0)
    if native_rate <= 0:
        raise RuntimeError("espeak-ng does not find its data")
    library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))  # for the breath noise of some voices; by default the time
    blocks: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples: Any, count: int, _events: int | None) -> int:
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)

    def speak(job: Job) -> np.ndarray:
        _reference = collect  # the library has a bare pointer to it, which does not keep it alive
        if library.espeak_SetVoiceByName(job["voice"].encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {job['voice']}")
        for parameter, name in ((_RATE, "rate"), (_PITCH, "pitch"), (_RANGE, "range")):
            library.espeak_SetParameter(parameter, job[name], 0)
        blocks.clear()
        text = job["text"].encode() + b"\0"
        library.espeak_Synth(text, len(text), 0, 0, 0, _CHARS_UTF8, None, None)
        if not blocks:
            raise RuntimeError(f"espeak-ng produced no samples for {job['text']!r}")
        waveform = soxr.resample(np.concatenate(blocks).astype(np.float32), native_rate, SAMPLE_RATE)
        target = 32768.0 * 10 ** (job["level"] / 20)
        waveform *= target / np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
        return np.clip(np.rint(waveform), -32768, 32767).astype(np.int16)

    return speak


def _write_wav(path: str, waveform: np.ndarray) -> None:
    with wave.open(path, "wb") as file:  # several times faster than soundfile for thousands of short clips
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(waveform.astype("<i2").tobytes())


def main() -> None:
    """Process the jobs on standard input."""
    speak = open_espeak()
    with open(sys.stdin.fileno(), encoding="utf-8", closefd=False) as lines:
        for job in map(json.loads, lines):
            waveform = speak(job)
            if job["path"] is not None:
                _write_wav(job["path"], waveform)
            print(len(waveform))


if __name__ == "__main__":
    main()
