"""Converted copies of training utterances: their files in the run's folder, and their rows beside the recordings.

A file is named by a hash of all that its audio depends on, so that it never becomes stale, and a run that was killed
continues with the same audio.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from accelerate import PartialState
from datasets import Audio, Dataset, DatasetDict, Features, Value, concatenate_datasets
from tqdm.auto import tqdm

from core.audio import SAMPLING_RATE, Excerpt, read_audio, read_duration, scan_audio
from core.errors import InputError, writing
from core.json_files import write_lines
from recipe.conversion import Voice, check_command, check_world, convert, describe_voice, run_command
from recipe.corpora.rows import read_excerpts, speakers_known
from recipe.difficulty import Pair, check_shares, choose_pairs
from recipe.feature_cache import hash_content
from recipe.options import Arguments, DataArguments
from recipe.repeats import DIGEST

SOURCE = "converted_from"  # column: id of the utterance that a copy was made of; empty for a recording
FOLDER, SELECTION = "converted", "selection.jsonl"
VOICE_UTTERANCES = 20  # that a speaker is described by
METHOD = "WORLD 1"  # part of the names of the files: change it with what recipe/conversion.py computes
Recall = Callable[[tuple, Callable[[], Any]], Any]


def check_conversion(data: DataArguments) -> None:
    """Raise InputError if there is nothing to convert with, or an utterance would be both easy and hard."""
    if data.convert == "none":
        return
    check_shares(data)
    if data.convert_command is None:
        check_world()
    else:
        check_command(data.convert_command)


def add_copies(
    args: Arguments, split: DatasetDict, probabilities: dict[str, float] | None, recall: Recall
) -> DatasetDict:
    """Add converted copies to the training set of a split. Several processes share the work.

    The copy of an utterance has its label, and the speaker and gender of its voice. Only training utterances are
    converted, to voices of training speakers.

    Args:
        probabilities: that the early model gives the label of each training utterance, by id; None draws at random.
        recall: returns a value by its key, computed on first use.

    Raises:
        InputError: the training set has fewer than two speakers or does not name them, or audio cannot be converted.
    """
    state, rows = PartialState(), split["train"]
    speakers = rows["speaker"][:]
    if len(set(speakers)) < 2 or not speakers_known(speakers):
        raise InputError(
            "--convert gives utterances the voice of another training speaker, but the training set "
            f"{'names no other' if speakers_known(speakers) else 'does not name all speakers'}: set it to none"
        )
    known = None if probabilities is None else np.array([probabilities[name] for name in rows["id"][:]])
    pairs, described = choose_pairs(np.array(rows["label"][:]), np.array(speakers), args.data, args.trainer.seed, known)
    folder = Path(args.trainer.output_dir) / FOLDER
    paths = write_copies(rows, pairs, args.data, folder, recall)
    if state.is_main_process:
        write_selection(folder / SELECTION, rows, pairs, described, paths)
    state.print(describe_copies(rows, pairs, args.data))
    return DatasetDict({**split, "train": join_copies(rows, make_rows(rows, pairs, paths))})


def write_copies(rows: Dataset, pairs: list[Pair], data: DataArguments, folder: Path, recall: Recall) -> list[Path]:
    """Convert what is not there yet, and return the file of each copy."""
    state, excerpts, speakers = PartialState(), read_excerpts(rows[:]), rows["speaker"][:]
    if state.is_main_process:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    state.wait_for_everyone()
    uttered = {speaker: choose_utterances(excerpts, speakers, speaker) for speaker in dict.fromkeys(speakers)}
    hashes: dict[str, str] = {}

    def identify(excerpt: Excerpt) -> tuple:
        if excerpt.path not in hashes:
            hashes[excerpt.path] = hash_content(excerpt.path)
        return hashes[excerpt.path], excerpt.start, excerpt.end

    def locate(pair: Pair) -> Path:
        how: list[Any] = [data.convert_command, identify(excerpts[pair.reference])]
        if data.convert_command is None:
            how = [METHOD, *([identify(each) for each in uttered[speakers[index]]] for index in pair)]
        key = repr((identify(excerpts[pair.source]), data.trim_db, how))
        return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.flac"

    def find_voice(speaker: str) -> Voice:
        key = ("voice", data.trim_db, *uttered[speaker])
        voice = recall(key, lambda: describe_voice(read_audio(each, data.trim_db) for each in uttered[speaker]))
        if voice is None:
            raise InputError(f"the utterances of speaker {speaker!r} have no voice to convert: set --convert to none")
        return voice

    def make_copy(pair: Pair) -> np.ndarray:
        speech = read_audio(excerpts[pair.source], data.trim_db)
        if data.convert_command is not None:
            return run_command(data.convert_command, speech, read_audio(excerpts[pair.reference], data.trim_db))
        return convert(speech, *(find_voice(speakers[index]) for index in pair))

    paths = [locate(pair) for pair in pairs]
    missing = [(path, pair) for path, pair in dict(zip(paths, pairs)).items() if not path.is_file()]
    share = missing[state.process_index :: state.num_processes]
    for path, pair in tqdm(share, desc="converting", leave=False, disable=not state.is_main_process):
        unfinished = path.with_suffix(".unfinished")
        with writing(path):
            soundfile.write(unfinished, make_copy(pair), SAMPLING_RATE, subtype="PCM_16", format="FLAC")
        unfinished.replace(path)
    state.wait_for_everyone()
    return paths


def choose_utterances(excerpts: list[Excerpt], speakers: list[str], speaker: str) -> list[Excerpt]:
    """The utterances that a speaker is described by, evenly spaced in the rows."""
    own = [excerpt for excerpt, other in zip(excerpts, speakers) if other == speaker]
    return [own[index] for index in np.linspace(0, len(own) - 1, min(len(own), VOICE_UTTERANCES)).astype(int)]


def make_rows(rows: Dataset, pairs: list[Pair], paths: list[Path]) -> Dataset:
    """The rows of the copies, with the columns of the recordings and `SOURCE`."""
    copies = rows.select([pair.source for pair in pairs])
    voices = rows.select([pair.reference for pair in pairs])
    columns: dict[str, list[Any]] = {
        "id": [f"{source}>{speaker}" for source, speaker in zip(copies["id"][:], voices["speaker"][:])],
        "audio": [str(path) for path in paths],
        "speaker": voices["speaker"][:],
        "gender": voices["gender"][:],
        "duration": [read_duration(path) for path in paths],
    }
    columns |= {name: [None] * len(paths) for name in ("start", "end") if name in rows.column_names}
    if DIGEST in rows.column_names:
        columns[DIGEST] = [scan_audio(path).digest for path in paths]
    features = Features({name: rows.features[name] for name in columns if name != "audio"} | {"audio": Value("string")})
    replaced = Dataset.from_dict(columns, features=features).cast_column("audio", Audio(decode=False))
    both = concatenate_datasets([copies.remove_columns(list(columns)), replaced], axis=1)
    return both.select_columns(rows.column_names).add_column(SOURCE, copies["id"][:])


def join_copies(rows: Dataset, copies: Dataset) -> Dataset:
    """Recordings and copies, sorted by duration."""
    both = concatenate_datasets([rows.add_column(SOURCE, [""] * len(rows)), copies])
    return both.select(np.argsort(both["duration"][:], kind="stable"))


def select_recordings(rows: Dataset) -> Dataset:
    """Rows without converted copies."""
    if SOURCE not in rows.column_names:
        return rows
    return rows.select([index for index, source in enumerate(rows[SOURCE][:]) if not source])


def list_copies(rows: Dataset) -> list[tuple[str, ...]]:
    """What identifies each converted copy: its id and, if its audio was read, its digest."""
    if SOURCE not in rows.column_names:
        return []
    names = [SOURCE, "id", *([DIGEST] if DIGEST in rows.column_names else [])]
    return [row[1:] for row in zip(*(rows[name][:] for name in names)) if row[0]]


def write_selection(
    path: Path, rows: Dataset, pairs: list[Pair], described: list[dict[str, Any]], paths: list[Path]
) -> None:
    """A line for each training utterance: what the early model says of it, its role and its copies."""
    names, ids, speakers = rows.features["label"].names, rows["id"][:], rows["speaker"][:]
    copies: dict[int, list[dict[str, str]]] = {}
    for each, file in zip(pairs, paths):
        voice = {"voice": speakers[each.reference], "reference": ids[each.reference], "file": file.name}
        copies.setdefault(each.source, []).append(voice)
    columns = zip(ids, speakers, rows["gender"][:], rows["label"][:], described)
    write_lines(
        path,
        [
            {"id": name, "speaker": speaker, "gender": gender, "label": names[label], **known}
            | {"copies": copies.get(index, [])}
            for index, (name, speaker, gender, label, known) in enumerate(columns)
        ],
    )


def describe_copies(rows: Dataset, pairs: list[Pair], data: DataArguments) -> str:
    """Say how many utterances are converted, and across how many speakers and genders."""
    speakers, genders = rows["speaker"][:], rows["gender"][:]
    crossing = sum(genders[pair.source] != genders[pair.reference] for pair in pairs)
    sources = len({pair.source for pair in pairs})
    kind = "bias-guiding" if data.convert == "guiding" else "random"
    return (
        f"  {len(pairs)} copies of {sources} {kind} training utterances, in the voices of "
        f"{len({speakers[pair.reference] for pair in pairs})} training speakers, {crossing} of another gender"
    )
