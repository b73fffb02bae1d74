"""The stage engine: split the utterances, train and score each stage, and write a complete folder."""

import copy
import os
import time
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import datasets
import torch
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from torch import Tensor
from transformers import PrinterCallback, ProgressCallback, SequenceFeatureExtractor, set_seed
from transformers.utils import logging

from core.errors import InputError, warn, writing
from core.json_files import read_lines, write_lines
from core.loading import make_feature_extractor
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.augmentation import build_augmentation, describe_degradation
from recipe.babble import read_voices
from recipe.batching import Collator
from recipe.calibration import fit_temperature, fit_unsure_threshold
from recipe.checkpoints import CHECKPOINTS, best_until, checkpoints_in, flush, last_complete
from recipe.checks import check_durations, check_run, check_stage1_speakers, check_text, list_stages
from recipe.class_weights import compute_class_weights
from recipe.converted import add_copies
from recipe.corpora.rows import count_speakers
from recipe.data import read_rows, split_rows
from recipe.dimension_scores import fit_calibration, has_dimensions
from recipe.dimensions import ALONE
from recipe.distribution_scores import fit_mixed_threshold, has_distributions
from recipe.entries import name_run
from recipe.feature_cache import fill_cache, find_cache_folder, plan_cache, remove_cache
from recipe.joining import list_corpora, select_corpora
from recipe.lora import load_merged
from recipe.model_card import write_model_card
from recipe.options import Arguments
from recipe.preparing import AudioCache, TrainingSet, UtterancePreparer, measure_bandwidth, prepare_rows
from recipe.publishing import push, round_weights
from recipe.reading import make_reader
from recipe.results import (
    class_lines,
    describe_data,
    describe_model,
    describe_unseen,
    explain_use,
    score_lines,
    write_results,
)
from recipe.scoring import never_predicted, predict, score_file
from recipe.stage_folder import describe_run, open_stage_folder, read_finished, remove_checkpoints
from recipe.stages import build_model, find_source, find_stage1_folder, find_stage_folder
from recipe.statistics_classifier import FILE, fit_statistics_classifier, recall_fitted
from recipe.teacher import find_teacher
from recipe.tracking import fit_tracker
from recipe.trainer import EpochLines, SERAlignTrainer, epoch_history, find_weights
from recipe.training_arguments import build_training_arguments


class Preparers(NamedTuple):
    """Prepare rows as model inputs: for evaluation, and for training with augmentation."""

    evaluation: UtterancePreparer
    training: UtterancePreparer


def run(arguments: dict[int, Arguments]) -> None:
    """Train the requested stages, and push the last one to the Hub if requested."""
    quiet_libraries()
    check_run(arguments)
    stage_dir = train_stages(arguments, *read_rows(arguments[1]))
    if PartialState().is_main_process:
        print(explain_use(stage_dir))
        if arguments[1].trainer.push_to_hub:
            push(stage_dir, arguments[1 if stage_dir.name == "stage1" else 2], arguments[1].trainer.push_to_hub)


def quiet_libraries() -> None:
    """Silence the libraries, so that only our own messages and progress bars are shown."""
    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def train_stages(
    arguments: dict[int, Arguments], rows: Dataset, num_broken: int, cache: AudioCache | None = None
) -> Path:
    """Split the rows and train the requested stages; return the folder of the last one.

    Args:
        num_broken: number of utterances that were dropped from the rows; recorded in the results.
        cache: in-memory audio cache shared by several runs; None creates one for these stages.
    """
    data, state, cache = arguments[1].data, PartialState(), cache or AudioCache()
    stages = list_stages(arguments[1])
    split = split_rows(data, rows)
    state.print("\n".join(split_lines(name_run(data), split)))

    for stage in stages:
        compute_class_weights(arguments[stage].model.class_weights, split["train"])  # refuses unknown labels at once
        if arguments[stage].model.text_encoder is not None:
            check_text(split, name_run(data), arguments[stage].model.text_levels)
    if data.convert != "none":
        probabilities = predict_early(arguments[1], split, num_broken, cache) if data.convert == "guiding" else None
        split = add_copies(arguments[1], split, probabilities, cache.get)
    for stage in stages:
        if stage == 2:
            check_stage1_speakers(find_stage1_folder(arguments[2]), data, split)
        run_stage(stage, arguments[stage], split, num_broken, cache)
    if data.feature_cache_dir is None and state.is_main_process:
        remove_cache(find_cache_folder(arguments[1]))
    return find_stage_folder(stages[-1], arguments[stages[-1]])


def predict_early(args: Arguments, split: DatasetDict, num_broken: int, cache: AudioCache) -> dict[str, float]:
    """Train the early model, in the folder `early`; return the probability of the label of each training utterance.

    It is a stage 1 of `early_epochs` that hears recordings alone; its last weights answer.
    """
    early = copy.deepcopy(args)
    early.data.feature_cache_dir, early.data.convert = str(find_cache_folder(args)), "none"
    early.trainer.output_dir = str(Path(args.trainer.output_dir) / "early")
    early.trainer.num_epochs, early.trainer.predict_training = args.data.early_epochs, True
    early.trainer.push_to_hub = None
    PartialState().print(f"\nThe early model, {args.data.early_epochs:g} epochs of stage 1:")
    run_stage(1, early, split, num_broken, cache)
    PartialState().wait_for_everyone()
    lines = read_lines(find_stage_folder(1, early) / "last" / "predictions.jsonl")
    return {line["id"]: line["probabilities"][line["label"]] for line in lines if line["split"] == "train"}


def split_lines(corpus: str, split: DatasetDict) -> list[str]:
    """Describe the sets of a split, and how much of each is from which corpus if there are several."""
    minutes = sum(sum(part["duration"][:]) for part in split.values()) / 60
    lines = [f"{corpus}: {sum(map(len, split.values()))} utterances, {minutes:.1f} minutes"]
    for name, part in split.items():
        lines.append(f"  {name:12}{len(part):5} utterances{count_speakers(part)}")
        for one, rows in select_corpora(part).items():
            lines.append(
                f"    {one:10}{len(rows):5} utterances{count_speakers(rows)}, {sum(rows['duration']) / 60:.1f} minutes"
            )
    return lines


def run_stage(stage: int, args: Arguments, split: DatasetDict, num_broken: int, cache: AudioCache) -> None:
    """Train one stage, score its best and last weights, and write a complete folder."""
    state = PartialState()
    stage_dir = find_stage_folder(stage, args)
    record = describe_run(stage, args, split)
    finished = read_finished(stage_dir, record, args.trainer.overwrite)
    if finished is not None:
        report_finished(stage, stage_dir, finished)
        return

    # Build everything that can fail before touching anything on disk.
    set_seed(args.trainer.seed)
    model = build_model(stage, args, split["train"])
    feature_extractor = make_feature_extractor(model.config, find_source(stage, args), args.data.trim_db)
    preparers = make_preparers(stage, model, feature_extractor, args, split, cache)
    bandwidth = measure_bandwidth(split["train"], preparers.training)
    model.config.bandwidth = feature_extractor.bandwidth = bandwidth  # type: ignore[attr-defined]
    trainer = make_trainer(model, feature_extractor, preparers, stage_dir, args, split)

    with state.main_process_first():
        open_stage_folder(stage_dir, record, args.trainer.overwrite)
    if preparers.training.feature_cache is not None:
        fill_cache(model, {**dict.fromkeys(split, preparers.evaluation), "train": preparers.training}, split)
        if args.trainer.predict_training:
            fill_cache(model, {"train": preparers.evaluation}, DatasetDict({"train": split["train"]}))
    statistics = None
    if model.statistics_classifier is not None:  # before training, which sums up to nothing while its weights are zero
        fit = partial(
            fit_statistics_classifier, model, split["train"], preparers.training, args.trainer.eval_batch_size
        )
        statistics = recall_fitted(stage_dir / CHECKPOINTS / FILE, fit)
    training = train(trainer, stage_dir / CHECKPOINTS)
    scores = score_checkpoints(stage_dir, feature_extractor, preparers, args, split, statistics)
    if state.is_main_process:
        results = describe_data(args, split, num_broken) | describe_model(stage, model) | training | {"scores": scores}
        finish_stage(stage_dir, results, trainer, args)
        report_scores(results)
    state.wait_for_everyone()


def report_finished(stage: int, stage_dir: Path, results: dict[str, Any]) -> None:
    state = PartialState()
    if state.is_main_process:
        remove_checkpoints(stage_dir)  # the run may have been killed before this
    state.print(f"\nStage {stage} is already finished: {stage_dir}. To train it again, add --overwrite.")
    state.print("\n".join(score_lines(results)))


def make_preparers(
    stage: int,
    model: SERAlignForAudioClassification,
    feature_extractor: SequenceFeatureExtractor,
    args: Arguments,
    split: DatasetDict,
    cache: AudioCache,
) -> Preparers:
    """Build the preparers and print a summary of the model. Raises InputError if an utterance is too short."""
    shortest, longest = model.config.shortest_samples, model.config.longest_seconds
    check_durations(split, shortest, longest)
    PartialState().print(
        f"\nStage {stage}: {model.config.encoder_config.model_type} encoder, {model.config.pooling} pooling, "
        + (f"{model.config.text_encoder_config.model_type} text encoder, " if model.config.reads_text else "")
        + f"{model.num_parameters():,} parameters"
    )
    augmentation = build_augmentation(args.data)
    for line in describe_degradation(args.data):
        PartialState().print(line)
    feature_cache = plan_cache(model, args, split)
    audio_cache = cache if args.data.cache_audio else None
    reader = make_reader(model, args, split)
    caches: dict[str, Any] = {"cache": audio_cache, "feature_cache": feature_cache}
    evaluation = UtterancePreparer(feature_extractor, shortest, longest, **caches, reader=reader)
    training = UtterancePreparer(
        feature_extractor,
        shortest,
        min(filter(None, (args.data.max_duration, longest)), default=None),
        augmentation,
        num_labels=model.config.num_labels,
        **caches,
        voices=read_voices(split["train"]) if augmentation.has_babble else None,
        teacher=find_teacher(args, split),
        reader=reader,
    )
    return Preparers(evaluation, training)


def make_trainer(
    model: SERAlignForAudioClassification,
    feature_extractor: SequenceFeatureExtractor,
    preparers: Preparers,
    stage_dir: Path,
    args: Arguments,
    split: DatasetDict,
) -> SERAlignTrainer:
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(stage_dir / "tensorboard")
    trainer = SERAlignTrainer(
        model=model,
        args=build_training_arguments(stage_dir, args),
        train_dataset=TrainingSet(split["train"], preparers.training),
        eval_dataset=prepare_rows(split["validation"], preparers.evaluation),
        watched_test=prepare_rows(split["test"], preparers.evaluation) if args.trainer.watch_test else None,
        data_collator=Collator(preparers.evaluation.input_name),
        processing_class=feature_extractor,
        durations=split["train"]["duration"][:],
        corpora={name: list_corpora(part) for name, part in split.items()},
        corpus_temperature=args.data.corpus_temperature,
        bucket_batches=args.data.bucket_batches,
        ema_decay=args.trainer.ema_decay,
        pooling_learning_rate=args.trainer.pooling_learning_rate,
        classifier_learning_rate=args.trainer.classifier_learning_rate,
        center_learning_rate=args.trainer.center_learning_rate,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(EpochLines)
    return trainer


def train(trainer: SERAlignTrainer, checkpoints: Path) -> dict[str, Any]:
    """Train, resuming from the last complete checkpoint if there is one; return the entries for results.json.

    The library loads only tensors and numbers from a checkpoint.
    """
    checkpoint = last_complete(checkpoints)
    if checkpoint is not None:
        PartialState().print(f"  resuming from {checkpoint}")
    start = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except UnpicklingError:
        raise InputError(
            f"{checkpoint} contains more than tensors and numbers, so it was not loaded: remove it to resume from the "
            "previous checkpoint"
        ) from None
    return {
        **summarize_progress(trainer),
        "seconds": time.perf_counter() - start,
        "resumed": checkpoint is not None,
        "device": trainer.args.device.type,
    }


def summarize_progress(trainer: SERAlignTrainer) -> dict[str, Any]:
    """The history of all epochs, and the numbers of the best and the last one."""
    history = epoch_history(trainer.state.log_history)
    best = next(line["epoch"] for line in history if line["step"] == trainer.state.best_global_step)
    return {"epochs": {"best": best, "last": history[-1]["epoch"]}, "history": history}


def score_checkpoints(
    stage_dir: Path,
    feature_extractor: SequenceFeatureExtractor,
    preparers: Preparers,
    args: Arguments,
    split: DatasetDict,
    statistics: dict[str, Tensor] | None,
) -> dict[str, Any]:
    """Save the best weights in the stage folder and the last ones in `last`; return the scores of both.

    Args:
        statistics: weights of the statistics classifier, if the model has one.
    """
    last = checkpoints_in(stage_dir / CHECKPOINTS)[-1]
    scores = {}
    for name, checkpoint, directory in (("best", best_until(last), stage_dir), ("last", last, stage_dir / "last")):
        model = load_merged(find_weights(checkpoint), args.model)
        if statistics is not None:
            model.statistics_classifier.load_state_dict(statistics)
        if model.tracker is not None:
            settings = args.data.corpus_temperature, args.trainer.seed
            fit = partial(fit_tracker, model, split, preparers.training, *settings)
            model.tracker.load_state_dict(recall_fitted(stage_dir / CHECKPOINTS / f"tracker-{name}.safetensors", fit))
        scores[name] = save_and_score(model, feature_extractor, preparers.evaluation, directory, args, split)
    return scores


def save_and_score(
    model: SERAlignForAudioClassification,
    feature_extractor: SequenceFeatureExtractor,
    preparer: UtterancePreparer,
    directory: Path,
    args: Arguments,
    split: DatasetDict,
) -> dict[str, Any]:
    """Write a folder with weights, code, feature extractor and predictions.jsonl; return its scores.

    The scores are those of the saved model, reloaded in float32 as its users will load it. Its calibration temperature
    is fitted on the validation set first, before it the calibration of dimensions, and then the score below which an
    answer is unsure or, with distributions as targets, the one above which a label is part of a mixed answer.
    """
    state = PartialState()
    if args.trainer.float16_weights:
        round_weights(model)
    pipeline = SpeechEmotionRecognitionPipeline(
        model=model, feature_extractor=feature_extractor, tokenizer=preparer.reader and preparer.reader.tokenizer
    )
    if state.is_main_process:
        with writing(directory):
            pipeline.save_pretrained(directory)
    state.wait_for_everyone()
    saved = SERAlignForAudioClassification.from_pretrained(directory, dtype=torch.float32).to(state.device)
    how = (preparer, args.trainer.eval_batch_size, args.data.gap_columns)
    validation = predict(saved, split["validation"], *how)
    if has_dimensions(validation):
        saved.config.dimension_calibration = fit_calibration(validation)
    if saved.config.classes_are_regions:  # whose scores follow from the calibrated values
        validation = predict(saved, split["validation"], *how)
    saved.config.calibration_temperature = fit_temperature(validation)
    for part in filter(None, (saved.config.encoder_config, saved.config.text_encoder_config)):
        part.name_or_path = ""  # it may be a local path
    names = ("validation", "test", *(("train",) if args.trainer.predict_training else ()))
    parts = {name: predict(saved, split[name], *how) for name in names}
    if not state.is_main_process:
        return {}
    if has_distributions(parts["validation"]):
        saved.config.mixed_above = fit_mixed_threshold(parts["validation"])
    else:
        saved.config.unsure_below = fit_unsure_threshold(parts["validation"], args.trainer.sure_accuracy)
    with writing(directory):
        saved.config.save_pretrained(directory)
    lines = [{"split": name, **prediction} for name, part in parts.items() for prediction in part]
    write_lines(directory / "predictions.jsonl", lines)
    fitted = {"temperature": saved.config.calibration_temperature, "unsure_below": saved.config.unsure_below}
    if saved.config.mixed_above is not None:
        fitted["mixed_above"] = saved.config.mixed_above
    if saved.config.dimension_calibration is not None:
        fitted["dimension_calibration"] = dict(zip(saved.config.dimension_names, saved.config.dimension_calibration))
    return {**score_file(directory / "predictions.jsonl"), **fitted}


def finish_stage(stage_dir: Path, results: dict[str, Any], trainer: SERAlignTrainer, args: Arguments) -> None:
    """Write the log, the model card and, last, the results, which mark the stage as finished."""
    write_lines(stage_dir / "training_log.jsonl", trainer.state.log_history)
    with writing(stage_dir):
        write_model_card(stage_dir, results, args, where=args.trainer.push_to_hub or str(stage_dir))
        flush(stage_dir)
    write_results(stage_dir, results)
    remove_checkpoints(stage_dir)


def report_scores(results: dict[str, Any]) -> None:
    print(f"Stage {results['stage']} took {results['seconds']:.0f} s. Scores on {describe_unseen(results)}:")
    print("\n".join([*score_lines(results), *class_lines(results)]))
    unused = never_predicted(results["scores"]["best"]["validation"])
    if unused and results["arguments"]["targets"] != ALONE:
        warn(
            f"stage {results['stage']} never predicts {', '.join(unused)} on the validation set: train longer, change "
            "the learning rates, or add utterances of that class"
        )
