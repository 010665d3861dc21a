"""Who says what, and how, in the synthetic corpus: characters, dialogues and prosody, all from one seed.

A character is a voice variant with a pitch and a rate of its own; it keeps its gender in the three languages, as a
dubbed one does. The variants are shared by the splits, the characters and the sentences are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from study.common.groups import EMOTIONS, GENDERS
from study.data.corpora.synthetic.sentences import CUE, PLAIN, Sentence


@dataclass(frozen=True)
class Size:
    """Counts of the corpus, each as (train, dev, test).

    Attributes:
        characters: of each gender.
        each: utterances of a character for each of the seven emotions.
    """

    characters: tuple[int, int, int] = (20, 10, 10)
    each: tuple[int, int, int] = (4, 5, 5)


FULL = Size()
SMALL = Size((2, 2, 2), (2, 1, 1))

VARIANTS = {
    "female": ("f1", "f2", "f3", "f4", "f5", "aunty", "belinda", "grandma", "linda", "shelby"),
    "male": ("m1", "m2", "m3", "m5", "m6", "m7", "adam", "michel", "Denis", "Diogo"),
}

# Units of the four prosodic dimensions: pitch and range in espeak's steps (ten steps of pitch are about 1.5 semitones
# for every voice), rate in nats of words a minute, level in dB.
NEUTRAL = np.array([46.0, 50.0, math.log(190.0), -30.0])
# Every (language, gender) has a neutral of its own, so that what is learnt from one group does not simply carry over to
# another: that is why a scarce group suffers. The signs alternate, so no gender and no language is ahead.
HABIT = np.array([0.0, 0.0, 0.06, 1.5])
HABIT_SIGN = {
    ("en", "female"): -1, ("en", "male"): 1,
    ("de", "female"): 1, ("de", "male"): -1,
    ("ja", "female"): -1, ("ja", "male"): 1,
}  # fmt: skip
SPREAD = np.array([8.0, 0.0, 0.06, 1.0])  # of characters around it, half width
JITTER = np.array([6.0, 9.0, 0.08, 1.6])  # of utterances around their character, standard deviation
SHIFT = {
    "neutral": np.array([0.0, 0.0, 0.0, 0.0]),
    "joy": np.array([14.0, 20.0, 0.08, 2.0]),
    "surprise": np.array([24.0, 30.0, -0.04, 0.0]),
    "anger": np.array([4.0, 10.0, 0.14, 5.0]),
    "sadness": np.array([-14.0, -25.0, -0.20, -4.0]),
    "disgust": np.array([-18.0, 5.0, -0.10, 2.0]),
    "fear": np.array([16.0, -20.0, 0.20, -3.0]),
}


@dataclass(frozen=True)
class Character:
    """One pseudo-speaker: ``prosody`` [4] is its neutral."""

    name: str
    gender: str
    split: str
    variant: str
    prosody: np.ndarray


@dataclass(frozen=True)
class Utterance:
    """One utterance of a dialogue, in all languages; ``jitter`` [3, 4] is that of (en, de, ja)."""

    dialogue: int
    number: int
    character: Character
    emotion: str
    sentence: Sentence
    jitter: np.ndarray

    def prosody(self, language: str, cue: float) -> dict:
        """The synthesiser's settings, with the emotion's shift times ``cue``."""
        jitter = self.jitter[Sentence._fields.index(language)]
        neutral = self.character.prosody + HABIT_SIGN[language, self.character.gender] * HABIT
        pitch, spread, rate, level = neutral + cue * SHIFT[self.emotion] + jitter
        return {
            "pitch": int(np.clip(round(pitch), 0, 99)),
            "range": int(np.clip(round(spread), 0, 99)),
            "rate": int(np.clip(round(math.exp(rate)), 80, 400)),
            "level": round(float(level), 2),
        }


def write_dialogues(seed: int, size: Size = FULL) -> list[Utterance]:
    """All utterances of the corpus, split by split and dialogue by dialogue."""
    rng = np.random.default_rng(seed)
    utterances: list[Utterance] = []
    for index, split in enumerate(PLAIN):
        cast = _cast(rng, split, size.characters[:index], size.characters[index])
        parts = [(character, *part) for character in cast for part in _part(character, size.each[index])]
        sentences = _sentences(rng, split, parts)
        for scene in _scenes(rng, cast, list(zip(parts, sentences, strict=True))):
            number = utterances[-1].dialogue + 1 if utterances else 0
            for turn, ((character, emotion, _), sentence) in enumerate(scene):
                jitter = rng.normal(size=(3, 4)) * JITTER
                utterances.append(Utterance(number, turn, character, emotion, sentence, jitter))
    return utterances


def _cast(rng: np.random.Generator, split: str, before: tuple[int, ...], count: int) -> list[Character]:
    """The characters of a split; ``before`` counts those of the splits before it, so that names run on."""
    neutrals = NEUTRAL + rng.uniform(-1, 1, size=(count, 4)) * SPREAD  # shared by the genders, so that neither is ahead
    characters = []
    for gender in GENDERS:
        for place in range(count):
            number = sum(before) + place
            name = f"{gender[0].upper()}{number + 1:02d}"
            variant = VARIANTS[gender][number % len(VARIANTS[gender])]
            characters.append(Character(name, gender, split, variant, neutrals[place]))
    return characters


def _part(character: Character, each: int) -> list[tuple[str, bool]]:
    """(emotion, with a cue word) of each utterance of a character; half of them have one."""
    odd = int(character.name[1:]) % 2  # who gets the extra cue sentence where the number is odd
    return [(emotion, i < (each + odd) // 2) for emotion in EMOTIONS for i in range(each)]


def _sentences(rng: np.random.Generator, split: str, parts: list[tuple[Character, str, bool]]) -> list[Sentence]:
    """A sentence for each part; every sentence of a kind is used equally often by both genders."""
    left: dict[tuple[str, str, bool], list[Sentence]] = {}
    chosen = []
    for character, emotion, cue in parts:
        pool = left.setdefault((character.gender, emotion, cue), [])
        if not pool:
            sentences = CUE[split][emotion] if cue else PLAIN[split]
            pool.extend(sentences[i] for i in rng.permutation(len(sentences)))
        chosen.append(pool.pop())
    return chosen


def _scenes(rng: np.random.Generator, cast: list[Character], lines: list) -> list[list]:
    """Dialogues of 2 to 4 characters and 4 to 8 lines that use every line once."""
    left = {character.name: [] for character in cast}
    for i in rng.permutation(len(lines)):
        left[lines[i][0][0].name].append(lines[i])
    scenes = []
    while any(left.values()):
        order = [cast[i].name for i in rng.permutation(len(cast))]
        order.sort(key=lambda name: -len(left[name]))  # those with most lines left, so that all end together
        present = order[: rng.integers(2, 5)]
        scene = []
        for turn in range(rng.integers(4, 9)):
            speaker = present[turn % len(present)]
            if left[speaker]:
                scene.append(left[speaker].pop())
        scenes.append(scene)
    return scenes
