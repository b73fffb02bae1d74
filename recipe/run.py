"""The stage engine: split the utterances, train each stage, score it and leave a complete folder."""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import datasets
import torch
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import PrinterCallback, ProgressCallback, SequenceFeatureExtractor, set_seed
from transformers.utils import logging

from core.audio import SAMPLING_RATE
from core.errors import InputError, warn, writing
from core.json_files import write_lines
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.arguments import Arguments, DataArguments
from recipe.augmentation import build_augmentation
from recipe.batching import Collator
from recipe.calibration import fit_temperature
from recipe.checkpoints import CHECKPOINTS, best_until, checkpoints_in, flush, last_complete
from recipe.corpora.rows import count_classes, count_speakers
from recipe.data import read_rows, split_of
from recipe.feature_cache import fill_cache, find_cache_folder, plan_cache, remove_cache
from recipe.model_card import write_model_card
from recipe.preparing import AudioCache, UtterancePreparer, prepare_rows
from recipe.publishing import push
from recipe.results import library_versions, read_results, score_lines, unseen, write_results
from recipe.scoring import never_predicted, predict, score_file
from recipe.stage_folder import finished_before, folder_of, open_stage_folder, record_of, remove_checkpoints
from recipe.stages import build_model, feature_extractor_for, stage1_folder, training_arguments
from recipe.trainer import EpochLines, SERAlignTrainer, epoch_history, weights_of


def run(arguments: dict[int, Arguments]) -> None:
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


def train_stages(
    arguments: dict[int, Arguments], rows: Dataset, num_broken: int, cache: AudioCache | None = None
) -> Path:
    """Split the rows and train the stages that are asked for; returns the folder of the last one.

    Args:
        num_broken: utterances that were left out of the rows, for the record.
        cache: audio in memory, where runs share it; None is one for these stages.
    """
    data, run = arguments[1].data, arguments[1].trainer
    stages = (1, 2) if run.stage == "both" else (int(run.stage),)
    state = PartialState()
    cache = cache or AudioCache()
    check_launch(arguments, stages)
    split = split_of(data, rows)
    corpora = " -> ".join(filter(None, (data.corpus, data.test_corpus)))
    state.print(f"{corpora}: {len(rows)} utterances, {sum(rows['duration']) / 60:.1f} minutes")
    for name, part in split.items():
        state.print(f"  {name:12}{len(part):5} utterances{count_speakers(part)}")

    for stage in stages:
        if stage == 2:
            check_stage1_speakers(stage1_folder(arguments[2]), data, split)
        run_stage(stage, arguments[stage], split, num_broken, cache)
    if data.features_dir is None and state.is_main_process:
        remove_cache(find_cache_folder(arguments[1]))
    return folder_of(stages[-1], arguments[stages[-1]])


def run_stage(stage: int, args: Arguments, split: DatasetDict, num_broken: int, cache: AudioCache) -> None:
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
        feature_extractor,
        model.config.shortest_samples,
        args.data.trim_db,
        cache=cache if args.data.cache_audio else None,
    )
    check_durations(split, preparer.shortest)
    state.print(
        f"\nStage {stage}: {model.config.encoder_config.model_type} encoder, {model.config.pooling} pooling, "
        f"{model.num_parameters():,} parameters"
    )
    preparer.feature_cache = plan_cache(model, args, split)
    train_preparer = preparer_for_training(preparer, args, model.config.num_labels)
    trainer = make_trainer(model, feature_extractor, preparer, train_preparer, stage_dir, args, split)

    # Nothing on disk is touched before everything that can be wrong has been built.
    with state.main_process_first():
        open_stage_folder(stage_dir, record, args.trainer.overwrite)
    if preparer.feature_cache is not None:
        fill_cache(model, {**dict.fromkeys(split, preparer), "train": train_preparer}, split)
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
            "class_counts": {name: count_classes(part) for name, part in split.items()},
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


def preparer_for_training(preparer: UtterancePreparer, args: Arguments, num_labels: int) -> UtterancePreparer:
    """As for evaluation, but with variants of each utterance, and the longest ones cut."""
    return UtterancePreparer(
        preparer.feature_extractor,
        preparer.shortest,
        args.data.trim_db,
        args.data.max_duration,
        build_augmentation(args.data),
        num_labels=num_labels,
        cache=preparer.cache,
        feature_cache=preparer.feature_cache,
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
        train_dataset=prepare_rows(split["train"], train_preparer),
        eval_dataset=prepare_rows(split["validation"], preparer),
        watched_test=prepare_rows(split["test"], preparer) if args.trainer.watch_test else None,
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
