"""Train SER-Align in two stages and score it on unseen speakers.

    accelerate launch train.py --config run_configs/quickstart.yaml
    accelerate launch train.py --config run_configs/ravdess/mini.yaml --data_dir RAVDESS --learning_rate 5e-4
    accelerate launch train.py --config my.yaml --stage 2 --init_from outputs/my/stage1

Options come from the defaults, then from the YAML file, then from the command line; the last one wins. In
YAML, sections `stage1` and `stage2` hold what differs between the stages.

Each stage leaves a folder OUTPUT_DIR/stage1, OUTPUT_DIR/stage2 that AutoModel loads and the Hub takes: the
weights of the best validation UA, those of the last epoch in `last`, both scored in results.json. The same
command again goes on after an interruption.
"""

import sys

from recipe.arguments import Arguments, DataArguments, first_difference, parse_arguments
from recipe.errors import InputError, error_line, warn, writing

if __name__ == "__main__":  # before the slow imports, so that --help and a mistyped option answer at once
    try:
        ARGUMENTS = parse_arguments(sys.argv[1:], description=__doc__)
    except InputError as error:
        sys.exit(error_line(error))

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, DatasetDict
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id
from transformers import PrinterCallback, ProgressCallback, SequenceFeatureExtractor, set_seed
from transformers.utils import logging

from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.audio import SAMPLING_RATE
from recipe.augmentation import augmentation_of
from recipe.batching import Collator, UtterancePreparer, prepared, shortest_utterance
from recipe.broken import broken_files, left_out
from recipe.calibration import fit_temperature
from recipe.checkpoints import CHECKPOINTS, best_until, checkpoints_in, flush, last_complete
from recipe.corpora import load_corpus
from recipe.corpora.rows import class_counts, count_speakers
from recipe.features import features_folder, features_to_keep, keep_features, remove_features
from recipe.reporting import (
    library_versions,
    read_json,
    read_results,
    score_lines,
    unseen,
    write_json,
    write_model_card,
    write_results,
)
from recipe.scoring import never_predicted, predict, score_file, write_lines
from recipe.selection import selected, train_on_one_test_on_another
from recipe.splits import make_split
from recipe.stages import build_model, feature_extractor_for, stage1_folder, training_arguments
from recipe.trainer import EpochLines, SERAlignTrainer, epoch_history, weights_of

# Of a stage folder, what only the machine that trained it needs, and what names places on it.
NOT_PUSHED = ("arguments.json", "tensorboard/*")
CARD = "README.md"
# Seconds before a push that the Hub did not answer is tried again. Its client tries only some of its calls again.
RETRY_AFTER = (1, 2, 4)


def main(arguments: dict[int, Arguments]) -> None:
    quiet_libraries()
    stage_dir = train_stages(arguments, *read_rows(arguments[1]))
    if PartialState().is_main_process:
        print(how_to_use(stage_dir))
        if arguments[1].trainer.push_to_hub:
            push(stage_dir, arguments[1 if stage_dir.name == "stage1" else 2], arguments[1].trainer.push_to_hub)


def quiet_libraries() -> None:
    """Only our own lines and bars on the terminal."""
    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def read_rows(args: Arguments) -> tuple[Dataset, int]:
    """The utterances to train and test on, and how many were left out, as their files are broken.

    The first process reads the corpus, the others find what it wrote; each then reads its share of the files, so that
    all leave out the same.
    """
    state = PartialState(cpu=args.trainer.use_cpu)
    with state.main_process_first():
        rows = selected_rows(args.data)
    broken = dict(gather_object(list(broken_files(rows, state.process_index, state.num_processes).items())))
    return left_out(rows, broken, args.data.max_broken_share), len(broken)


def rows_of(data: DataArguments) -> Dataset:
    """The utterances to train and test on, read by this process alone."""
    rows = selected_rows(data)
    return left_out(rows, broken_files(rows), data.max_broken_share)


def selected_rows(data: DataArguments) -> Dataset:
    """The utterances of one corpus, or of two of which one trains and the other tests."""
    rows = load_corpus(
        data.corpus, data.data_dir, data.csv, data.partial_corpus, data.hub_options, data.allow_outside_paths
    )
    rows = selected(rows, data.only, data.label_map)
    if data.test_corpus is None:
        return rows
    test = load_corpus(
        data.test_corpus,
        data.test_data_dir,
        partial=data.partial_corpus,
        hub_options=data.test_hub_options,
        allow_outside=data.allow_outside_paths,
    )
    return train_on_one_test_on_another(rows, data.corpus, selected(test, {}, data.test_label_map), data.test_corpus)


def train_stages(arguments: dict[int, Arguments], rows: Dataset, num_broken: int) -> Path:
    """Split the rows and train the stages that are asked for; returns the folder of the last one.

    Args:
        num_broken: utterances that were left out of the rows, for the record.
    """
    data, run = arguments[1].data, arguments[1].trainer
    stages = (1, 2) if run.stage == "both" else (int(run.stage),)
    state = PartialState()
    check_launch(arguments, stages)
    split = split_of(data, rows)
    corpora = " -> ".join(filter(None, (data.corpus, data.test_corpus)))
    state.print(f"{corpora}: {len(rows)} utterances, {sum(rows['duration']) / 60:.1f} minutes")
    for name, part in split.items():
        state.print(f"  {name:12}{len(part):5} utterances{count_speakers(part)}")

    for stage in stages:
        if stage == 2:
            check_stage1_speakers(stage1_folder(arguments[2]), data, split)
        run_stage(stage, arguments[stage], split, num_broken)
    if data.features_dir is None and state.is_main_process:
        remove_features(features_folder(arguments[1]))
    return folder_of(stages[-1], arguments[stages[-1]])


def split_of(data: DataArguments, rows: Dataset) -> DatasetDict:
    return make_split(
        rows,
        data.corpus,
        data.fold,
        data.num_folds,
        data.num_validation_speakers,
        data.split_seed,
        data.protocol,
    )


def run_stage(stage: int, args: Arguments, split: DatasetDict, num_broken: int) -> None:
    """Train one stage, score its best and its last weights, and leave a complete folder."""
    state = PartialState()
    stage_dir = folder_of(stage, args)
    record = record_of(stage, args, split)
    finished = finished_before(stage_dir, record, args.trainer.overwrite)
    if finished is not None:
        if state.is_main_process:
            remove_checkpoints(stage_dir)  # a kill may have come before it
        state.print(f"\nStage {stage} is finished already, in {stage_dir}; --overwrite trains it again.")
        state.print("\n".join(score_lines(finished)))
        return

    set_seed(args.trainer.seed)
    model = build_model(stage, args, split["train"])
    feature_extractor = feature_extractor_for(model, stage, args)
    preparer = UtterancePreparer(
        feature_extractor, shortest_utterance(model.config), args.data.trim_db, cache=args.data.cache_audio
    )
    check_durations(split, preparer.shortest)
    state.print(
        f"\nStage {stage}: {model.config.encoder_config.model_type} encoder, {model.config.pooling} pooling, "
        f"{model.num_parameters():,} parameters"
    )
    features = preparer.features = features_to_keep(model, args, split)
    train_preparer = preparer_for_training(preparer, args, model.config.num_labels)
    trainer = make_trainer(model, feature_extractor, preparer, train_preparer, stage_dir, args, split)

    # Nothing on disk is touched before everything that can be wrong has been built.
    with state.main_process_first():
        open_stage_folder(stage_dir, record, args.trainer.overwrite)
    if features is not None:
        keep_features(model, {**dict.fromkeys(split, preparer), "train": train_preparer}, split)
    checkpoints = stage_dir / CHECKPOINTS
    resumed_from = last_complete(checkpoints)
    if resumed_from is not None:
        state.print(f"  going on from {resumed_from}")
    start = time.perf_counter()
    resume(trainer, resumed_from)
    seconds = time.perf_counter() - start

    last = checkpoints_in(checkpoints)[-1]
    scores = {}
    for name, checkpoint, directory in (("best", best_until(last), stage_dir), ("last", last, stage_dir / "last")):
        chosen = SERAlignForAudioClassification.from_pretrained(weights_of(checkpoint))
        scores[name] = save_and_score(chosen, feature_extractor, preparer, directory, args, split)
    if state.is_main_process:
        results = {
            "stage": stage,
            "corpus": args.data.corpus,
            "test_corpus": args.data.test_corpus,
            "protocol": args.data.protocol,
            "fold": None if "split" in split["train"].column_names else args.data.fold,
            "labels": list(model.config.id2label.values()),
            "scores": scores,
            **progress_of(trainer),
            "speakers": {name: sorted(set(part["speaker"])) for name, part in split.items()},
            "class_counts": {name: class_counts(part) for name, part in split.items()},
            "broken_files": num_broken,
            "hours": {name: sum(part["duration"]) / 3600 for name, part in split.items()},
            "frame_seconds": model.config.frame_seconds,
            "num_parameters": model.num_parameters(),
            "seconds": seconds,
            "resumed": resumed_from is not None,
            "device": trainer.args.device.type,
            "versions": library_versions(),
            "arguments": args.without_paths(),
        }
        write_lines(stage_dir / "training_log.jsonl", trainer.state.log_history)
        with writing(stage_dir):
            write_model_card(stage_dir, results, args, where=args.trainer.push_to_hub or str(stage_dir))
            flush(stage_dir)
        write_results(stage_dir, results)
        remove_checkpoints(stage_dir)
        print(f"Stage {stage} took {seconds:.0f} s. Scores on {unseen(results)}:")
        print("\n".join(score_lines(results)))
        unused = never_predicted(scores["best"]["validation"])
        if unused:
            warn(
                f"stage {stage} takes no validation utterance for {', '.join(unused)}: train longer, with other "
                "learning rates, or on more utterances of it"
            )
    state.wait_for_everyone()


def check_launch(arguments: dict[int, Arguments], stages: tuple[int, ...]) -> None:
    """Raise InputError for what would otherwise fail, or do harm, only after training."""
    run = arguments[1].trainer
    if torch.cuda.device_count() > 1 and not PartialState().use_distributed and not run.use_cpu:
        raise InputError("several GPUs are visible to one process: start with accelerate launch --multi_gpu")
    if run.push_to_hub is not None:
        try:
            validate_repo_id(run.push_to_hub)
        except HFValidationError as error:
            raise InputError(f"--push_to_hub {run.push_to_hub!r}: {' '.join(str(error).split())}") from None
    source = Path(run.init_from).resolve() if run.init_from else None
    for stage in stages:
        folder = folder_of(stage, arguments[stage]).resolve()
        if source is not None and folder in (source, *source.parents):
            raise InputError(f"--init_from {run.init_from} is the folder that stage {stage} writes: give --output_dir")


def check_stage1_speakers(folder: Path, data: DataArguments, split: DatasetDict) -> None:
    """Raise InputError if stage 1 was trained on speakers that validate or test stage 2, as on another fold."""
    first = read_results(folder.parent if folder.name == "last" else folder)
    if first is None:
        if (folder / "config.json").is_file():
            PartialState().print(f"warning: {folder} does not say which speakers it was trained on", file=sys.stderr)
        return
    known = voices(first["speakers"]["train"], first["corpus"], first.get("test_corpus"))
    for name in ("validation", "test"):
        heard = sorted(known & voices(split[name]["speaker"], data.corpus, data.test_corpus))
        if heard:
            raise InputError(
                f"{folder} was trained on speaker {heard[0]!r}, who stands in the {name} part now ({len(heard)} in "
                "all): start from a stage 1 of the same fold and seed"
            )


def voices(speakers: Iterable[str], corpus: str, test_corpus: str | None) -> set[str]:
    """Speakers with their corpus, which those of two corpora carry already."""
    return {speaker if test_corpus else f"{corpus}:{speaker}" for speaker in speakers}


def check_durations(split: DatasetDict, shortest: int) -> None:
    """Raise InputError for an utterance too short for one frame, before training instead of in the last epoch."""
    for part in split.values():
        row = part[0]  # each part is sorted by duration
        if row["duration"] * SAMPLING_RATE < shortest:
            raise InputError(
                f"{row['audio']['path']} lasts {row['duration']:.4f} s; one frame of the encoder needs at least "
                f"{shortest / SAMPLING_RATE:.4f} s: remove it or record it again"
            )


def folder_of(stage: int, args: Arguments) -> Path:
    return Path(args.trainer.output_dir) / f"stage{stage}"


def record_of(stage: int, args: Arguments, split: DatasetDict) -> dict[str, Any]:
    """What decides the outcome of a stage: its arguments, the rows of its split, and the stage 1 it starts from."""
    rows = [(name, *row) for name, part in split.items() for row in zip(part["id"], part["label"], part["speaker"])]
    record = {**args.flat(), "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}
    if stage == 2:
        first = stage1_folder(args) / "model.safetensors"
        record["stage1"] = hashlib.sha256(first.read_bytes()).hexdigest() if first.is_file() else None
    return record


def finished_before(stage_dir: Path, record: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The results of a stage that an earlier run finished in this folder, if any.

    Raises:
        InputError: the folder belongs to a run with other arguments or data, or is no folder of a run at all.
    """
    path = stage_dir / "arguments.json"
    # The Trainer makes an empty folder there before that file is written, and a kill may come in between.
    files = (entry for entry in stage_dir.rglob("*") if entry.is_file() and entry.name != f"{path.name}.unfinished")
    if not path.is_file() and any(files):
        raise InputError(f"{stage_dir} has files but no arguments.json, so no run made it: choose another --output_dir")
    if overwrite or not path.is_file():
        return None
    difference = first_difference(read_json(path), record)
    if difference is not None:
        raise InputError(f"{stage_dir} was trained with {difference}: choose another --output_dir, or --overwrite")
    return read_results(stage_dir)


def open_stage_folder(stage_dir: Path, record: dict[str, Any], overwrite: bool) -> None:
    """Make the folder of a stage, or keep the one of an interrupted run."""
    if not PartialState().is_main_process:
        return
    stage_dir.mkdir(parents=True, exist_ok=True)
    for entry in stage_dir.iterdir() if overwrite else ():
        if entry.name != "arguments.json":  # it says that a run made this folder, also if a kill comes here
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_json(stage_dir / "arguments.json", record)


def preparer_for_training(preparer: UtterancePreparer, args: Arguments, num_labels: int) -> UtterancePreparer:
    """As for evaluation, but with variants of each utterance, and the longest ones cut."""
    return UtterancePreparer(
        preparer.feature_extractor,
        preparer.shortest,
        args.data.trim_db,
        args.data.max_duration,
        augmentation_of(args.data),
        num_labels=num_labels,
        cache=args.data.cache_audio,
        features=preparer.features,
    )


def make_trainer(
    model: SERAlignForAudioClassification,
    feature_extractor: SequenceFeatureExtractor,
    preparer: UtterancePreparer,
    train_preparer: UtterancePreparer,
    stage_dir: Path,
    args: Arguments,
    split: DatasetDict,
) -> SERAlignTrainer:
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(stage_dir / "tensorboard")
    trainer = SERAlignTrainer(
        model=model,
        args=training_arguments(stage_dir, args),
        train_dataset=prepared(split["train"], train_preparer),
        eval_dataset=prepared(split["validation"], preparer),
        watched_test=prepared(split["test"], preparer) if args.trainer.watch_test else None,
        data_collator=Collator(preparer.input_name),
        processing_class=feature_extractor,
        durations=split["train"]["duration"][:],
        duration_pool=args.data.duration_pool,
        averaging=args.trainer.averaging,
        pooling_learning_rate=args.trainer.pooling_learning_rate,
        classifier_learning_rate=args.trainer.classifier_learning_rate,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(EpochLines)
    return trainer


def remove_checkpoints(stage_dir: Path) -> None:
    """Of a stage whose best and last weights are both saved."""
    shutil.rmtree(stage_dir / CHECKPOINTS, ignore_errors=True)


def resume(trainer: SERAlignTrainer, checkpoint: Path | None) -> None:
    """Train, from a checkpoint if there is one; of its files the library reads tensors and numbers alone."""
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except UnpicklingError:
        raise InputError(
            f"{checkpoint} holds more than tensors and numbers, so it was not read, and no run wrote it so: remove it, "
            "and training goes on from the one before"
        ) from None


def save_and_score(
    model: SERAlignForAudioClassification,
    feature_extractor: SequenceFeatureExtractor,
    preparer: UtterancePreparer,
    directory: Path,
    args: Arguments,
    split: DatasetDict,
) -> dict[str, Any]:
    """A folder with weights, code, feature extractor and predictions.jsonl; the scores that follow from it.

    What is scored is the saved model, loaded again in float32: that is what its users get. Its temperature is
    fitted on validation data first.
    """
    state = PartialState()
    pipeline = SpeechEmotionRecognitionPipeline(model=model, feature_extractor=feature_extractor)
    if state.is_main_process:
        with writing(directory):
            pipeline.save_pretrained(directory)
    state.wait_for_everyone()
    saved = SERAlignForAudioClassification.from_pretrained(directory, dtype=torch.float32).to(state.device)
    validation = predict(saved, split["validation"], preparer, args.trainer.eval_batch_size)
    saved.config.temperature = fit_temperature(validation)
    saved.config.encoder_config.name_or_path = ""  # where the encoder came from may be a folder of this machine
    if state.is_main_process:
        with writing(directory):
            saved.config.save_pretrained(directory)
    predictions = []
    for name in ("validation", "test"):
        part = predict(saved, split[name], preparer, args.trainer.eval_batch_size)
        predictions += [{"split": name, **prediction} for prediction in part]
    if not state.is_main_process:
        return {}
    write_lines(directory / "predictions.jsonl", predictions)
    return {**score_file(directory / "predictions.jsonl"), "temperature": saved.config.temperature}


def progress_of(trainer: SERAlignTrainer) -> dict[str, Any]:
    """History of the epochs, and which of them are the best and the last."""
    history = epoch_history(trainer.state.log_history)
    best = next(line["epoch"] for line in history if line["step"] == trainer.state.best_global_step)
    return {"epochs": {"best": best, "last": history[-1]["epoch"]}, "history": history}


def how_to_use(stage_dir: Path) -> str:
    return f"""
The model is in {stage_dir}. To use it:

  python predict.py speech.wav --model {stage_dir}

or

  from transformers import pipeline
  recognize = pipeline("speech-emotion-recognition", "{stage_dir}", trust_remote_code=True)
  print(recognize("speech.wav", return_timeline=True))
"""


def push(stage_dir: Path, args: Arguments, repo_id: str) -> None:
    """The stage folder to the Hub, with a model card that names it there.

    Raises:
        InputError: the Hub cannot be reached or refuses; it says how to push by hand. The folder stays complete.
    """
    results = read_results(stage_dir)

    def write_card(commit: str = "") -> None:
        if results is not None:
            write_model_card(stage_dir, results, args, where=repo_id, revision=commit)

    write_card()
    for seconds in (*RETRY_AFTER, None):
        try:
            url = upload(stage_dir, repo_id, not args.trainer.hub_public, write_card)
            break
        except (HTTPError, OSError, RuntimeError) as error:  # the last one from the transfer of large files
            if seconds is None or not is_transient(error):
                raise InputError(
                    f"{repo_id} could not be pushed ({' '.join(str(error).split())}); the model is complete in "
                    f"{stage_dir}, push it later: {push_by_hand(stage_dir, args, repo_id)}"
                ) from error
            print(f"warning: the Hub does not answer ({error}); trying again in {seconds} s", file=sys.stderr)
            time.sleep(seconds)
    print(f"Pushed to {url}")


def upload(stage_dir: Path, repo_id: str, private: bool, write_card: Callable[[str], None]) -> str:
    """Make the repository, unless it exists, and put the folder into it: first all but the card, which names the
    commit of the code beside it. Doing it again changes no more than that name."""
    api = HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    ignored = [f"{CHECKPOINTS}/*", CARD, *NOT_PUSHED]
    write_card(api.upload_folder(repo_id=repo_id, folder_path=stage_dir, ignore_patterns=ignored).oid)
    return api.upload_file(repo_id=repo_id, path_or_fileobj=stage_dir / CARD, path_in_repo=CARD)


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed soon: no answer, or one that says so."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, HTTPError)


def push_by_hand(stage_dir: Path, args: Arguments, repo_id: str) -> str:
    """The Hub client's own command that pushes the same files."""
    words = ["hf", "upload", repo_id, str(stage_dir), *([] if args.trainer.hub_public else ["--private"])]
    for pattern in NOT_PUSHED:
        words += ["--exclude", pattern]
    return shlex.join(words)


if __name__ == "__main__":
    try:
        main(ARGUMENTS)
    except InputError as error:
        sys.exit(error_line(error))
