"""The same audio twice in a corpus: copies of a recording under other names, and excerpts of one file that overlap."""

import os
from collections.abc import Iterator
from itertools import combinations, product

from datasets import Dataset, DatasetDict

from core.audio import Excerpt
from core.errors import InputError, warn
from decoding_ser_align import describe_recording
from recipe.corpora.rows import read_excerpts

DIGEST = "digest"  # column of rows whose audio has been read: equal for copies of a recording
MEANINGLESS = "scores on training data are meaningless"


def refuse_shared_audio(split: DatasetDict) -> None:
    """Raise InputError if two sets share a file, excerpts that share half of the shorter one, or a recording and its
    copy.

    Two speakers of a conversation may overlap a little.
    """
    _refuse_shared_files(split)
    if DIGEST in split["train"].column_names:
        _refuse_shared_copies(split)


def _refuse_shared_files(split: DatasetDict) -> None:
    places: dict[str, dict[str, list[Excerpt]]] = {}
    for name, part in split.items():
        for excerpt in read_excerpts(part[:]):
            places.setdefault(os.path.realpath(excerpt.path), {}).setdefault(name, []).append(excerpt)
    for path, parts in places.items():
        for first, second in combinations(parts, 2):
            shared = next((pair for pair in product(parts[first], parts[second]) if _share_audio(*pair)), None)
            if shared:
                times = "" if all(one.is_whole for one in shared) else f", as {shared[0]} and {shared[1]}"
                raise InputError(
                    f"file {path!r} is in both {first} and {second}{times}: {MEANINGLESS}; keep it in only one of them"
                )


def _refuse_shared_copies(split: DatasetDict) -> None:
    first: dict[str, tuple[str, Excerpt]] = {}
    shared = []
    for name, part in split.items():
        for digest, excerpt in zip(part[DIGEST][:], read_excerpts(part[:])):
            place, original = first.setdefault(digest, (name, excerpt))
            if place != name:
                shared.append(f"{_name(original)} in {place} and {_name(excerpt)} in {name}")
    if shared:
        raise InputError(
            f"{shared[0]} are the same recording ({len(shared)} such pairs in total): {MEANINGLESS}; remove one of them"
        )


def drop_copies(rows: Dataset) -> Dataset:
    """Keep the first of several copies of a recording, and say on standard error how many were dropped."""
    if DIGEST not in rows.column_names:  # no audio has been read yet
        return rows
    copies = {copy for _, copy in _find_copies(rows[DIGEST][:], read_excerpts(rows[:]))}
    if not copies:
        return rows
    warn(f"dropped {len(copies)} of {len(rows)} utterances: copies of others, which may be in another set")
    return rows.select([index for index in range(len(rows)) if index not in copies])


def warn_of_two_labels(rows: Dataset) -> None:
    """Say on standard error if the same audio has two labels, in copies or in overlapping excerpts of one file."""
    excerpts, labels = read_excerpts(rows[:]), rows["label"][:]
    names = rows.features["label"].names
    for found, what, advice in (
        (_find_copies(rows[DIGEST][:], excerpts), "are the same recording", "remove the wrong ones"),
        (_find_overlaps(excerpts), "overlap", "correct the times or the labels"),
    ):
        pairs = [(one, other) for one, other in found if labels[one] != labels[other]]
        if pairs:
            one, other = pairs[0]
            warn(
                f"{_name(excerpts[one])} and {_name(excerpts[other])} {what} and are labelled {names[labels[one]]!r} "
                f"and {names[labels[other]]!r} ({len(pairs)} such pairs in total): {advice}"
            )


def _find_copies(digests: list[str], excerpts: list[Excerpt]) -> Iterator[tuple[int, int]]:
    """The first row of each recording, with each of its copies in another file."""
    first: dict[str, int] = {}
    for index, digest in enumerate(digests):
        original = first.setdefault(digest, index)
        if original != index and os.path.realpath(excerpts[original].path) != os.path.realpath(excerpts[index].path):
            yield original, index


def _find_overlaps(excerpts: list[Excerpt]) -> Iterator[tuple[int, int]]:
    """Pairs of excerpts of one file that share at least half of the shorter one."""
    places: dict[str, list[int]] = {}
    for index, excerpt in enumerate(excerpts):
        places.setdefault(os.path.realpath(excerpt.path), []).append(index)
    for indices in places.values():
        indices.sort(key=lambda index: excerpts[index].start)
        for position, one in enumerate(indices):
            for other in indices[position + 1 :]:
                end = excerpts[one].end
                if end is not None and excerpts[other].start >= end:
                    break
                if _share_audio(excerpts[one], excerpts[other]):
                    yield one, other


def _share_audio(one: Excerpt, other: Excerpt) -> bool:
    if one.end is None or other.end is None:  # a whole file
        return True
    shared = min(one.end, other.end) - max(one.start, other.start)
    return shared > 0 and shared >= 0.5 * min(one.end - one.start, other.end - other.start)


def _name(excerpt: Excerpt) -> str:
    return describe_recording(str(excerpt))
