"""A clip is decoded again when it has changed, and only then."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from study.corpora import corpus
from study.corpora.audio import inspect_clip
from study.corpora.corpus import inspect_clips
from tests.corpora.builders import write_wav


@pytest.fixture
def clips(tmp_path):
    """Rows of four clips, the last of them silent."""
    paths = [tmp_path / f"{name}.wav" for name in "abcd"]
    for path in paths:
        write_wav(path, level=0.0 if path.stem == "d" else 0.1)
    return pd.DataFrame({"path": [str(path) for path in paths], "where": [f"row {n}" for n in range(4)]})


@pytest.fixture
def decoded(monkeypatch):
    """The names of the clips that have been decoded since the list was emptied."""
    names: list[str] = []

    def inspect(path):
        names.append(os.path.basename(path))
        return inspect_clip(path)

    monkeypatch.setattr(corpus, "inspect_clip", inspect)
    return names


def test_clips_in_order_are_decoded_once_until_they_change(clips, decoded, tmp_path):
    cache = tmp_path / "cache"
    first = inspect_clips(clips, cache)
    assert sorted(decoded) == ["a.wav", "b.wav", "c.wav", "d.wav"]
    decoded.clear()
    pd.testing.assert_frame_equal(inspect_clips(clips, cache), first)
    assert decoded == ["d.wav"]  # what is wrong with a clip is looked at again
    decoded.clear()

    write_wav(tmp_path / "b.wav", sound="another", samples=3200)
    (tmp_path / "c.wav").unlink()
    second = inspect_clips(clips, cache)
    assert sorted(decoded) == ["b.wav", "c.wav", "d.wav"]
    assert second["clip_found"][0] == first["clip_found"][0]
    assert second["clip_found"][1].samples == 3200 and second["digest"][1] != first["digest"][1]
    assert second["missing"].tolist() == [False, False, True, False]
    decoded.clear()
    inspect_clips(clips, cache)
    assert sorted(decoded) == ["c.wav", "d.wav"]


def test_without_a_cache_or_with_a_damaged_one_all_are_decoded(clips, decoded, tmp_path):
    inspect_clips(clips)
    inspect_clips(clips)
    assert len(decoded) == 8
    cache = tmp_path / "cache"
    inspect_clips(clips, cache)
    (file,) = (cache / "clips").iterdir()
    file.write_bytes(b"no table")
    decoded.clear()
    inspect_clips(clips, cache)
    assert len(decoded) == 4


def test_a_cache_that_cannot_be_written_costs_time_alone(clips, decoded, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert inspect_clips(clips, tmp_path / "cache")["digest"].ne("").tolist() == [True, True, True, False]
