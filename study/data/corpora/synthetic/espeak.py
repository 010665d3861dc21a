"""The synthesiser, run as a program of its own: JSON lines in, 16 kHz PCM files out.

espeak-ng keeps state between utterances, so its bytes repeat only from a fresh process that is given the same
utterances in the same order. ``synthesise`` starts such a process and runs this file in it, which is why the file
imports nothing of the project.

One line in is ``{"voice", "text", "pitch", "range", "rate", "level", "path"}``; a null path synthesises (to keep the
state) and writes nothing. One line out is the number of samples.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import wave
from collections.abc import Callable, Sequence

import numpy as np
import soxr

SAMPLE_RATE = 16_000
_SEED = 1
# values of speak_lib.h
_SYNCHRONOUS, _CHARS_UTF8, _RATE, _PITCH, _RANGE = 2, 1, 1, 3, 4


def synthesise(jobs: Sequence[dict]) -> list[int]:
    """Write one clip a job, all by one fresh process, and return their lengths in samples.

    Each job holds ``voice`` (as ``de+f2``), ``text``, ``pitch`` and ``range`` (0 to 99, 50 is the voice's own),
    ``rate`` (words a minute), ``level`` (RMS of the clip in dB re full scale) and ``path`` (or None).

    Raises:
        RuntimeError: the process failed; the message ends with the last line that it said.
    """
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    # -P: the folder of this file must not become importable
    done = subprocess.run(
        [sys.executable, "-P", os.path.abspath(__file__)], input=lines, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode != 0:
        said = done.stderr.strip().rpartition("\n")[2]  # of a traceback the exception
        raise RuntimeError(f"the synthesiser ended with {done.returncode}: {said}")
    return [int(count) for count in done.stdout.split()]


def open_espeak() -> Callable[[dict], np.ndarray]:
    """Load espeak-ng into this process and return its speaking function: job -> int16 waveform [samples] at 16 kHz."""
    import espeakng_loader  # only the program itself needs it

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    native_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(espeakng_loader.get_data_path()), 0)
    if native_rate <= 0:
        raise RuntimeError("espeak-ng does not find its data")
    library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))  # of the breath noise of some voices, else taken from the clock
    blocks: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples, count: int, _events) -> int:
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)

    def say(job: dict) -> np.ndarray:
        _keep = collect  # the library holds a bare pointer to it
        if library.espeak_SetVoiceByName(job["voice"].encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {job['voice']}")
        for parameter, name in ((_RATE, "rate"), (_PITCH, "pitch"), (_RANGE, "range")):
            library.espeak_SetParameter(parameter, job[name], 0)
        blocks.clear()
        text = job["text"].encode() + b"\0"
        library.espeak_Synth(text, len(text), 0, 0, 0, _CHARS_UTF8, None, None)
        if not blocks:
            raise RuntimeError(f"espeak-ng said nothing for {job['text']!r}")
        waveform = soxr.resample(np.concatenate(blocks).astype(np.float32), native_rate, SAMPLE_RATE)
        target = 32768.0 * 10 ** (job["level"] / 20)
        waveform *= target / np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
        return np.clip(np.rint(waveform), -32768, 32767).astype(np.int16)

    return say


def _write_wav(path: str, waveform: np.ndarray) -> None:
    with wave.open(path, "wb") as file:  # several times faster than soundfile on thousands of short clips
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(waveform.astype("<i2").tobytes())


def main() -> None:
    """Serve the jobs on standard input."""
    say = open_espeak()
    sys.stdin.reconfigure(encoding="utf-8")
    for job in map(json.loads, sys.stdin):
        waveform = say(job)
        if job["path"] is not None:
            _write_wav(job["path"], waveform)
        print(len(waveform))


if __name__ == "__main__":
    main()
