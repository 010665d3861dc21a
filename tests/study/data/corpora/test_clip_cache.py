"""A clip is decoded again when it has changed, and only then."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from study.data.corpora import corpus
from study.data.corpora.audio import inspect_clip
from study.data.corpora.corpus import inspect_clips
from tests.study.data.corpora.builders import write_wav


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


def test_another_sound_of_the_same_size_and_date_is_decoded(clips, decoded, tmp_path):
    cache, place = tmp_path / "cache", tmp_path / "a.wav"
    first = inspect_clips(clips, cache)
    before = place.stat()
    write_wav(place, sound="another")
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (place.stat().st_size, place.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert inspect_clips(clips, cache)["digest"][0] != first["digest"][0]


def test_a_clip_that_changes_while_it_is_decoded_is_not_kept(clips, decoded, tmp_path, monkeypatch):
    def replaced_meanwhile(path):
        clip = inspect_clip(path)
        write_wav(tmp_path / "b.wav", sound="another")
        os.utime(tmp_path / "b.wav", (2e9, 2e9))  # a clock may have ticks of some milliseconds
        return clip

    monkeypatch.setattr(corpus, "_clip_or_fault", lambda p: replaced_meanwhile(p) if "b.wav" in p else inspect_clip(p))
    first = inspect_clips(clips.iloc[:3], tmp_path / "cache")
    monkeypatch.undo()
    assert inspect_clips(clips.iloc[:3], tmp_path / "cache")["digest"][1] != first["digest"][1]


def test_a_row_more_costs_one_clip_more(clips, decoded, tmp_path):
    inspect_clips(clips.iloc[:2], tmp_path / "cache")
    decoded.clear()
    inspect_clips(clips.iloc[:3], tmp_path / "cache")
    assert decoded == ["c.wav"]
    inspect_clips(clips.iloc[:1], tmp_path / "cache")  # forgets nothing of the others
    decoded.clear()
    inspect_clips(clips.iloc[:3], tmp_path / "cache")
    assert decoded == []


def test_without_a_cache_or_with_a_damaged_one_all_are_decoded(clips, decoded, tmp_path):
    inspect_clips(clips)
    inspect_clips(clips)
    assert len(decoded) == 8
    cache = tmp_path / "cache"
    inspect_clips(clips, cache)
    (file,) = (cache / "clips").iterdir()
    pd.DataFrame({"path": []}).to_parquet(tmp_path / "other.parquet")
    for damaged in (b"no table", (tmp_path / "other.parquet").read_bytes()):
        file.write_bytes(damaged)
        decoded.clear()
        inspect_clips(clips, cache)
        assert len(decoded) == 4


def test_a_cache_that_cannot_be_written_costs_time_alone(clips, decoded, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert inspect_clips(clips, tmp_path / "cache")["digest"].ne("").tolist() == [True, True, True, False]
