"""Who says what, and how, in the synthetic corpus: characters, dialogues and prosody, all from one seed.

A character is a voice variant with its own pitch and rate. Like a dubbed character, it has the same gender in all three
languages. The splits share the voice variants, but no character and no sentence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np

from study.common.groups import EMOTIONS, GENDERS
from study.data.corpora.synthetic.sentences import CUE, PLAIN, Sentence


@dataclass(frozen=True)
class Size:
    """Counts of the corpus, each as (train, dev, test).

    Attributes:
        characters: per gender.
        each: utterances per character and emotion.
    """

    characters: tuple[int, int, int] = (20, 10, 10)
    each: tuple[int, int, int] = (4, 5, 5)


FULL = Size()
SMALL = Size((2, 2, 2), (2, 1, 1))

VARIANTS = {
    "female": ("f1", "f2", "f3", "f4", "f5", "aunty", "belinda", "grandma", "linda", "shelby"),
    "male": ("m1", "m2", "m3", "m5", "m6", "m7", "adam", "michel", "Denis", "Diogo"),
}

# Units of the four dimensions of prosody: pitch and range in espeak's steps (ten steps of pitch are about 1.5 semitones
# for every voice), rate as the natural logarithm of words per minute, level in dB.
NEUTRAL = np.array([46.0, 50.0, math.log(190.0), -30.0])
# Every (language, gender) group has an offset of its own, so that what a model learns from one group does not simply
# transfer to another; otherwise scarcity would do no harm. The signs alternate, so that no gender and no language is at
# an advantage.
GROUP_OFFSET = np.array([0.0, 0.0, 0.06, 1.5])
GROUP_SIGN = {
    ("en", "female"): -1, ("en", "male"): 1,
    ("de", "female"): 1, ("de", "male"): -1,
    ("ja", "female"): -1, ("ja", "male"): 1,
}  # fmt: skip
CHARACTER_SPREAD = np.array([8.0, 0.0, 0.06, 1.0])  # of characters around NEUTRAL, half width
JITTER = np.array([6.0, 9.0, 0.08, 1.6])  # of utterances around their character, standard deviation
EMOTION_SHIFT = {
    "neutral": np.array([0.0, 0.0, 0.0, 0.0]),
    "joy": np.array([14.0, 20.0, 0.08, 2.0]),
    "surprise": np.array([24.0, 30.0, -0.04, 0.0]),
    "anger": np.array([4.0, 10.0, 0.14, 5.0]),
    "sadness": np.array([-14.0, -25.0, -0.20, -4.0]),
    "disgust": np.array([-18.0, 5.0, -0.10, 2.0]),
    "fear": np.array([16.0, -20.0, 0.20, -3.0]),
}


class Prosody(TypedDict):
    """Settings of the synthesiser: see ``espeak.Job``."""

    pitch: int
    range: int
    rate: int
    level: float


@dataclass(frozen=True)
class Character:
    """A synthetic speaker; ``prosody`` [4] is that of its neutral utterances."""

    name: str
    gender: str
    split: str
    variant: str
    prosody: np.ndarray


@dataclass(frozen=True)
class Utterance:
    """One utterance of a dialogue in all languages; ``jitter`` [3, 4] is that of (en, de, ja)."""

    dialogue: int
    number: int
    character: Character
    emotion: str
    sentence: Sentence
    jitter: np.ndarray

    def prosody(self, language: str, emotion_factor: float) -> Prosody:
        """Return the prosody with the emotion's shift times ``emotion_factor``."""
        jitter = self.jitter[Sentence._fields.index(language)]
        neutral = self.character.prosody + GROUP_SIGN[language, self.character.gender] * GROUP_OFFSET
        pitch, spread, rate, level = neutral + emotion_factor * EMOTION_SHIFT[self.emotion] + jitter
        return {
            "pitch": int(np.clip(round(pitch), 0, 99)),
            "range": int(np.clip(round(spread), 0, 99)),
            "rate": int(np.clip(round(math.exp(rate)), 80, 400)),
            "level": round(float(level), 2),
        }


class Line(NamedTuple):
    """What a character says, before it has a place in a dialogue."""

    character: Character
    emotion: str
    sentence: Sentence


def write_dialogues(seed: int, size: Size = FULL) -> list[Utterance]:
    """Return all utterances of the corpus, by split and dialogue."""
    rng = np.random.default_rng(seed)
    utterances: list[Utterance] = []
    for index, split in enumerate(PLAIN):
        characters = _create_characters(rng, split, sum(size.characters[:index]), size.characters[index])
        lines = _create_lines(rng, split, characters, size.each[index])
        for dialogue in _create_dialogues(rng, characters, lines):
            dialogue_number = utterances[-1].dialogue + 1 if utterances else 0
            for number, line in enumerate(dialogue):
                jitter = rng.normal(size=(3, 4)) * JITTER
                utterances.append(Utterance(dialogue_number, number, *line, jitter))
    return utterances


def _create_characters(rng: np.random.Generator, split: str, first: int, count: int) -> list[Character]:
    """Return the characters of a split, numbered from ``first``."""
    # The genders share these, so that neither has an advantage.
    neutrals = NEUTRAL + rng.uniform(-1, 1, size=(count, 4)) * CHARACTER_SPREAD
    return [
        Character(
            name=f"{gender[0].upper()}{first + i + 1:02d}",
            gender=gender,
            split=split,
            variant=VARIANTS[gender][(first + i) % len(VARIANTS[gender])],
            prosody=neutrals[i],
        )
        for gender in GENDERS
        for i in range(count)
    ]


def _create_lines(rng: np.random.Generator, split: str, characters: list[Character], each: int) -> list[Line]:
    """Return ``each`` lines per character and emotion, half of them with a cue word.

    Both genders use every sentence equally often.
    """
    unused: dict[tuple[str, str, bool], list[Sentence]] = {}
    lines = []
    for character in characters:
        extra_cue = int(character.name[1:]) % 2  # characters take turns where ``each`` is odd
        for emotion in EMOTIONS:
            for i in range(each):
                has_cue = i < (each + extra_cue) // 2
                pool = unused.setdefault((character.gender, emotion, has_cue), [])
                if not pool:
                    sentences = CUE[split][emotion] if has_cue else PLAIN[split]
                    pool.extend(sentences[j] for j in rng.permutation(len(sentences)))
                lines.append(Line(character, emotion, pool.pop()))
    return lines


def _create_dialogues(rng: np.random.Generator, characters: list[Character], lines: list[Line]) -> list[list[Line]]:
    """Return dialogues of 2 to 4 characters and 4 to 8 lines that use every line once."""
    remaining: dict[str, list[Line]] = {character.name: [] for character in characters}
    for i in rng.permutation(len(lines)):
        remaining[lines[i].character.name].append(lines[i])
    dialogues = []
    while any(remaining.values()):
        names = [characters[i].name for i in rng.permutation(len(characters))]
        names.sort(key=lambda name: -len(remaining[name]))  # most remaining lines first, so that all end together
        speakers = names[: rng.integers(2, 5)]
        dialogue = []
        for turn in range(rng.integers(4, 9)):
            speaker = speakers[turn % len(speakers)]
            if remaining[speaker]:
                dialogue.append(remaining[speaker].pop())
        dialogues.append(dialogue)
    return dialogues
