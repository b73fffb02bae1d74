"""The voices that babble is made of: training utterances of other speakers."""

import hashlib
from functools import cached_property

import numpy as np
from datasets import Dataset

from core.audio import Excerpt
from core.errors import InputError
from core.hashing import hash_content
from recipe.corpora.rows import read_excerpts


class Voices:
    """Utterances to draw voices from, with the speaker of each.

    Raises:
        InputError: all are of one speaker.
    """

    def __init__(self, excerpts: list[Excerpt], speakers: list[str]):
        if len(set(speakers)) < 2:
            raise InputError(
                f"babble is made of other speakers' voices, but all utterances are of {speakers[0]!r}: leave babble "
                "out of --degradations"
            )
        self.excerpts = excerpts
        self.speakers = np.array(speakers)
        self._speaker_of = dict(zip(excerpts, speakers))

    def draw(self, excerpt: Excerpt, number: int, rng: np.random.Generator) -> list[Excerpt]:
        """Draw utterances of speakers other than that of an excerpt."""
        others = np.flatnonzero(self.speakers != self._speaker_of.get(excerpt, ""))
        return [self.excerpts[index] for index in rng.choice(others, number).tolist()]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the recordings, excerpts and speakers, in order."""
        parts = [(hash_content(path), *times) for path, *times in self.excerpts]
        return hashlib.sha256(repr((parts, self.speakers.tolist())).encode()).hexdigest()


def read_voices(rows: Dataset) -> Voices:
    """The utterances of some rows."""
    return Voices(read_excerpts(rows[:]), rows["speaker"][:])
