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

from recipe.arguments import Arguments, parse_arguments
from recipe.errors import InputError

if __name__ == "__main__":  # before the slow imports, so that --help and a mistyped option answer at once
    try:
        ARGUMENTS = parse_arguments(sys.argv[1:], description=__doc__)
    except InputError as error:
        sys.exit(f"error: {error}")

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from datasets import DatasetDict
from huggingface_hub import HfApi
from transformers import PrinterCallback, ProgressCallback, SequenceFeatureExtractor, set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from modeling_ser_align import SERAlignForAudioClassification
from recipe.batching import Collator, UtterancePreparer, prepared, shortest_utterance
from recipe.corpora import load_corpus
from recipe.reporting import library_versions, read_results, score_lines, write_model_card, write_results
from recipe.scoring import predict, score_file, write_lines
from recipe.splits import make_split
from recipe.stages import build_model, feature_extractor_for, stage1_folder, training_arguments
from recipe.trainer import EpochLines, SERAlignTrainer

# May differ when an interrupted run goes on: they do not change what is learned.
FREE_TO_CHANGE = (
    *("output_dir", "stage", "overwrite", "push_to_hub", "eval_batch_size", "num_workers"),
    *("cache_audio", "tensorboard", "logging_steps", "data_dir", "csv", "use_cpu", "attn_implementation"),
)


def main(arguments: dict[int, Arguments]) -> None:
    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    data, run = arguments[1].data, arguments[1].trainer
    state = PartialState(cpu=run.use_cpu)

    with state.main_process_first():
        rows = load_corpus(data.corpus, data.data_dir, data.csv)
    split = make_split(rows, data.corpus, data.fold, data.num_folds, data.num_validation_speakers, data.split_seed)
    state.print(f"{data.corpus}: {len(rows)} utterances, {sum(rows['duration']) / 60:.1f} minutes")
    for name, part in split.items():
        state.print(f"  {name:12}{len(part):5} utterances of {len(set(part['speaker'])):3} speakers")

    stages = (1, 2) if run.stage == "both" else (int(run.stage),)
    for stage in stages:
        if stage == 2:
            check_stage1_speakers(stage1_folder(arguments[2]), data.corpus, split)
        run_stage(stage, arguments[stage], split)
    if state.is_main_process:
        stage_dir = folder_of(stages[-1], arguments[stages[-1]])
        print(how_to_use(stage_dir))
        if run.push_to_hub:
            push(stage_dir, arguments[stages[-1]], run.push_to_hub)


def run_stage(stage: int, args: Arguments, split: DatasetDict) -> None:
    """Train one stage, score its best and its last weights, and leave a complete folder."""
    state = PartialState()
    stage_dir = folder_of(stage, args)
    with state.main_process_first():
        finished = open_stage_folder(stage_dir, args)
    if finished is not None:
        state.print(f"\nStage {stage} is finished already, in {stage_dir}; --overwrite trains it again.")
        state.print("\n".join(score_lines(finished)))
        return

    set_seed(args.trainer.seed)
    model = build_model(stage, args, split["train"])
    state.print(
        f"\nStage {stage}: {model.config.encoder_config.model_type} encoder, {model.config.pooling} pooling, "
        f"{model.num_parameters():,} parameters"
    )
    feature_extractor = feature_extractor_for(model, stage, args)
    preparer = UtterancePreparer(
        feature_extractor, shortest_utterance(model.config), args.data.trim_db, cache=args.data.cache_audio
    )
    trainer = make_trainer(model, feature_extractor, preparer, stage_dir, args, split)

    checkpoint = last_complete_checkpoint(stage_dir)
    if checkpoint is not None:
        state.print(f"  going on from {checkpoint}")
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - start

    # The Trainer has put the best weights back; the last ones are in the newest checkpoint.
    best = trainer.accelerator.unwrap_model(trainer.model)
    last = SERAlignForAudioClassification.from_pretrained(get_last_checkpoint(stage_dir / "checkpoints"))
    scores = {
        "best": save_and_score(best, feature_extractor, preparer, stage_dir, args, split),
        "last": save_and_score(last.to(best.device), feature_extractor, preparer, stage_dir / "last", args, split),
    }
    if state.is_main_process:
        results = {
            "stage": stage,
            "corpus": args.data.corpus,
            "fold": args.data.fold,
            "labels": list(model.config.id2label.values()),
            "scores": scores,
            **progress_of(trainer),
            "speakers": {name: sorted(set(part["speaker"])) for name, part in split.items()},
            "num_parameters": model.num_parameters(),
            "seconds": seconds,
            "resumed": checkpoint is not None,
            "device": str(best.device),
            "versions": library_versions(),
            "arguments": args.flat(),
        }
        write_lines(stage_dir / "training_log.jsonl", trainer.state.log_history)
        write_model_card(stage_dir, results, args, where=args.trainer.push_to_hub or str(stage_dir))
        write_results(stage_dir, results)
        shutil.rmtree(stage_dir / "checkpoints")  # best and last are both saved by now
        print(f"Stage {stage} took {seconds:.0f} s. Scores on speakers that it has not heard in training:")
        print("\n".join(score_lines(results)))
    state.wait_for_everyone()


def check_stage1_speakers(folder: Path, corpus: str, split: DatasetDict) -> None:
    """Raise InputError if stage 1 was trained on speakers that validate or test stage 2, as on another fold."""
    first = read_results(folder)
    if first is None or first["corpus"] != corpus:
        return
    for name in ("validation", "test"):
        heard = sorted(set(first["speakers"]["train"]) & set(split[name]["speaker"]))
        if heard:
            raise InputError(
                f"{folder} was trained on speaker {heard[0]!r}, who stands in the {name} part now ({len(heard)} in "
                "all): start from a stage 1 of the same fold and seed"
            )


def folder_of(stage: int, args: Arguments) -> Path:
    return Path(args.trainer.output_dir) / f"stage{stage}"


def open_stage_folder(stage_dir: Path, args: Arguments) -> dict[str, Any] | None:
    """Make the folder of a stage, or take up what an earlier run left there; its results if it is finished.

    Raises:
        InputError: it belongs to a run with other arguments, or is no folder of a run at all.
    """
    record = stage_dir / "arguments.json"
    if stage_dir.exists() and any(stage_dir.iterdir()) and not record.is_file():
        raise InputError(
            f"{stage_dir} holds files but no arguments.json, so no run made it: choose another --output_dir"
        )
    if args.trainer.overwrite and PartialState().is_main_process and stage_dir.exists():
        shutil.rmtree(stage_dir)
    if record.is_file():
        earlier, now = json.loads(record.read_text(encoding="utf-8")), args.flat()
        changed = [name for name in now if name not in FREE_TO_CHANGE and earlier.get(name) != now[name]]
        if changed:
            name = changed[0]
            raise InputError(
                f"{stage_dir} was trained with {name}={earlier.get(name)!r}, now it is {now[name]!r}"
                f"{f' (and {len(changed) - 1} more differ)' if changed[1:] else ''}: "
                "choose another --output_dir, or --overwrite"
            )
        return read_results(stage_dir)
    stage_dir.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(args.flat(), indent=2) + "\n", encoding="utf-8")
    return None


def make_trainer(
    model: SERAlignForAudioClassification,
    feature_extractor: SequenceFeatureExtractor,
    preparer: UtterancePreparer,
    stage_dir: Path,
    args: Arguments,
    split: DatasetDict,
) -> SERAlignTrainer:
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(stage_dir / "tensorboard")
    train_preparer = UtterancePreparer(
        feature_extractor,
        preparer.shortest,
        args.data.trim_db,
        args.data.max_duration,
        args.data.speed_factors,
        cache=args.data.cache_audio,
    )
    trainer = SERAlignTrainer(
        model=model,
        args=training_arguments(stage_dir, args),
        train_dataset=prepared(split["train"], train_preparer),
        eval_dataset=prepared(split["validation"], preparer),
        data_collator=Collator(preparer.input_name),
        processing_class=feature_extractor,
        durations=split["train"]["duration"][:],
        duration_pool=args.data.duration_pool,
        pooling_learning_rate=args.trainer.pooling_learning_rate,
        classifier_learning_rate=args.trainer.classifier_learning_rate,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(EpochLines)
    return trainer


def last_complete_checkpoint(stage_dir: Path) -> str | None:
    """The newest checkpoint; one without trainer_state.json, written last, was cut short by a kill."""
    checkpoints = stage_dir / "checkpoints"
    for path in checkpoints.glob("checkpoint-*"):
        if not (path / "trainer_state.json").is_file() and PartialState().is_main_process:
            shutil.rmtree(path)
    PartialState().wait_for_everyone()
    return get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None


def save_and_score(
    model: SERAlignForAudioClassification,
    feature_extractor: SequenceFeatureExtractor,
    preparer: UtterancePreparer,
    directory: Path,
    args: Arguments,
    split: DatasetDict,
) -> dict[str, Any]:
    """A folder with weights, code, feature extractor and predictions.jsonl; the scores that follow from it."""
    predictions = []
    for name in ("validation", "test"):
        part = predict(model, split[name], preparer, args.trainer.eval_batch_size)
        predictions += [{"split": name, **prediction} for prediction in part]
    if not PartialState().is_main_process:
        return {}
    model.save_pretrained(directory)
    feature_extractor.save_pretrained(directory)
    write_lines(directory / "predictions.jsonl", predictions)
    return score_file(directory / "predictions.jsonl")


def progress_of(trainer: SERAlignTrainer) -> dict[str, Any]:
    """History of the epochs, and which of them are the best and the last."""
    history, loss = [], float("nan")
    for line in trainer.state.log_history:
        loss = line.get("loss", loss)
        if "eval_ua" in line:
            history.append(
                {
                    "epoch": line["epoch"],
                    "step": line["step"],
                    "loss": loss,
                    "ua": line["eval_ua"],
                    "wa": line["eval_wa"],
                }
            )
    best = next(line["epoch"] for line in history if line["step"] == trainer.state.best_global_step)
    return {"epochs": {"best": best, "last": history[-1]["epoch"]}, "history": history}


def how_to_use(stage_dir: Path) -> str:
    return f"""
The model is in {stage_dir}. Three lines use it:

  from transformers import pipeline
  classify = pipeline("audio-classification", "{stage_dir}", trust_remote_code=True)
  print(classify(waveform))  # 16 kHz mono float32 array: librosa.load("speech.wav", sr=16000)[0]
"""


def push(stage_dir: Path, args: Arguments, repo_id: str) -> None:
    """The stage folder to the Hub, with a model card that names it there."""
    results = read_results(stage_dir)
    if results is not None:
        write_model_card(stage_dir, results, args, where=repo_id)
    api = HfApi()
    api.create_repo(repo_id, exist_ok=True)
    url = api.upload_folder(
        repo_id=repo_id,
        folder_path=stage_dir,
        ignore_patterns=["checkpoints/*", "tensorboard/*", "arguments.json"],
    )
    print(f"Pushed to {url}")


if __name__ == "__main__":
    try:
        main(ARGUMENTS)
    except InputError as error:
        sys.exit(f"error: {error}")
