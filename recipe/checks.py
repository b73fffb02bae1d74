"""Checks before training, for problems that would otherwise surface hours later."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import DatasetDict
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from core.audio import SAMPLING_RATE
from core.errors import InputError, warn
from recipe.augmentation import check_augmentation
from recipe.converted import check_conversion
from recipe.corpora.rows import read_excerpts
from recipe.dimensions import check_dimensions, learns_dimensions, learns_labels
from recipe.entries import is_joint
from recipe.options import Arguments, DataArguments
from recipe.results import read_results
from recipe.stages import check_model, find_stage_folder
from recipe.training_arguments import build_training_arguments


def check_run(arguments: dict[int, Arguments], first: Arguments | None = None) -> None:
    """Check that a run can be trained, before its corpus is read.

    Args:
        arguments: of each stage, as returned by `parse_arguments`.
        first: the options of stage 1 if another run trains it before this one, as in an experiment.

    Raises:
        InputError: the model cannot be built, the Trainer rejects the options, or `check_launch` fails.
    """
    run = arguments[1].trainer
    PartialState(cpu=run.use_cpu)  # the first PartialState of a process sets the device for all later ones
    stages = list_stages(arguments[1])
    check_launch(arguments, stages)
    for stage in stages:
        check_targets(arguments[stage])
        build_training_arguments(find_stage_folder(stage, arguments[stage]), arguments[stage])
        check_augmentation(arguments[stage].data)
        check_conversion(arguments[stage].data)
        check_model(stage, arguments[stage], (arguments[1] if 1 in stages else first) if stage == 2 else None)


def check_targets(args: Arguments) -> None:
    """Raise InputError for what counts the labels of utterances, if these have other targets instead."""
    check_dimensions(args.data)
    if args.model.text_encoder is not None and args.data.mix_probability > 0:
        raise InputError("--mix_probability mixes voices, but not what they say: set it to 0, or remove --text_encoder")
    if args.model.text_encoder is None and args.model.text_levels != ["embedding"]:
        raise InputError(f"--text_levels {' '.join(args.model.text_levels)} needs --text_encoder: give one")
    if "word" in args.model.text_levels and args.data.degrade_probability > 0:
        raise InputError(
            "--degrade_probability moves speech, so that word times no longer fit it: set it to 0, or leave word "
            "out of --text_levels"
        )
    if not learns_labels(args.data) and args.model.class_weights is not None:
        raise InputError("--class_weights weighs labels, and --targets dimensions has none: remove it")
    if learns_dimensions(args.data) and args.trainer.batch_size < 2:
        raise InputError("the concordance of dimensions needs several utterances: give --batch_size 2 or more")
    if args.model.tracker_size > 0 and args.data.targets in ("distribution", "dimensions"):
        raise InputError(
            f"--tracker_size follows labels over time, and --targets {args.data.targets} has none: set it to 0"
        )
    if args.data.targets != "distribution":
        return
    if args.model.class_weights == "balanced":
        raise InputError(
            "--class_weights balanced counts labels, and --targets distribution has none: give the weights as JSON"
        )
    if args.model.statistics_layers > 0:
        raise InputError("--statistics_layers fits labels, and --targets distribution has none: set it to 0")


def check_text(split: DatasetDict, corpus: str, levels: Sequence[str] = ()) -> None:
    """Raise InputError if the training utterances have no words for a text encoder, or no word times for its level
    `word`; warn if some have none."""
    advice = "remove --text_encoder, or add the words: a column text in a CSV file, text_column in --hub_options"
    if "text" not in split["train"].column_names:
        raise InputError(f"{corpus} has no column text, and --text_encoder needs the words: {advice}")
    for name, part in split.items():
        missing = sum(not (text or "").strip() for text in part["text"][:])
        if missing == len(part) and name == "train":
            raise InputError(f"the column text of {corpus} is empty in all training utterances: {advice}")
        if missing and PartialState().is_main_process:
            warn(f"{missing} of {len(part)} {name} utterances of {corpus} have no words")
    if "word" not in levels:
        return
    if "words" not in split["train"].column_names or not any(split["train"]["words"][:]):
        raise InputError(
            f"no training utterance of {corpus} has word times, and --text_levels word needs them: give --transcripts "
            "or a column words, or leave out word"
        )
    for name, part in split.items():
        missing = sum(not words for words in part["words"][:])
        if missing and PartialState().is_main_process:
            warn(f"{missing} of {len(part)} {name} utterances of {corpus} have no word times")


def list_stages(args: Arguments) -> tuple[int, ...]:
    return (1, 2) if args.trainer.stage == "both" else (int(args.trainer.stage),)


def check_launch(arguments: dict[int, Arguments], stages: tuple[int, ...]) -> None:
    """Raise InputError for GPUs without a launcher, an invalid Hub name, or a stage that would overwrite its source."""
    run = arguments[1].trainer
    if torch.cuda.device_count() > 1 and not PartialState().use_distributed and not run.use_cpu:
        raise InputError("several GPUs are visible to one process: use accelerate launch --multi_gpu")
    if run.push_to_hub is not None:
        try:
            validate_repo_id(run.push_to_hub)
        except HFValidationError as error:
            raise InputError(f"--push_to_hub {run.push_to_hub!r}: {' '.join(str(error).split())}") from None
    source = Path(run.init_from).resolve() if run.init_from else None
    for stage in stages:
        folder = find_stage_folder(stage, arguments[stage]).resolve()
        if source is not None and folder in (source, *source.parents):
            raise InputError(
                f"--init_from {run.init_from} is the folder that stage {stage} writes: choose another --output_dir"
            )


def check_stage1_speakers(folder: Path, data: DataArguments, split: DatasetDict) -> None:
    """Raise InputError if stage 1 was trained on validation or test speakers of stage 2, as on another fold."""
    first = read_results(folder.parent if folder.name == "last" else folder)
    if first is None:
        if (folder / "config.json").is_file():
            PartialState().print(f"warning: {folder} does not record which speakers it was trained on", file=sys.stderr)
        return
    known = name_voices(first["speakers"]["train"], first["corpus"], bool(first.get("corpora")))
    for name in ("validation", "test"):
        heard = sorted(known & name_voices(split[name]["speaker"][:], data.corpus, is_joint(data)))
        if heard:
            raise InputError(
                f"{folder} was trained on speaker {heard[0]!r}, who is now in the {name} set ({len(heard)} such "
                "speakers in total): start from a stage 1 with the same fold and seed"
            )


def name_voices(speakers: Iterable[str], corpus: str, are_named: bool) -> set[str]:
    """Prefix speakers with their corpus, unless they come from several corpora and already have a prefix.

    Earlier releases wrote `emodb:03` instead of `emodb/03`.
    """
    if are_named:
        return set(speakers)
    return {f"{corpus}/{speaker.removeprefix(f'{corpus}:')}" for speaker in speakers}


def check_durations(split: DatasetDict, shortest: int, longest: float | None = None) -> None:
    """Raise InputError if an utterance is too short for one frame, before training rather than in the last epoch.

    Warns if utterances are longer than the encoder takes, in seconds: they are cut to their middle.
    """
    too_long = sum(seconds > longest for part in split.values() for seconds in part["duration"][:]) if longest else 0
    if too_long and PartialState().is_main_process:
        warn(f"the encoder takes at most {longest:g} s: only the middle of {too_long} longer utterances is used")
    for part in split.values():
        row = part[0]  # each part is sorted by duration
        if row["duration"] * SAMPLING_RATE < shortest:
            raise InputError(
                f"{read_excerpts(part[:1])[0]} lasts {row['duration']:.4f} s; one frame of the encoder needs at least "
                f"{shortest / SAMPLING_RATE:.4f} s: remove it or record it again"
            )
