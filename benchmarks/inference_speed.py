"""Inference speed from files to scores, compared with transformers' pipeline at its default batch size of one.

    python -m benchmarks.inference_speed --files 200 --repetitions 5
    python -m benchmarks.inference_speed --data_dir RAVDESS --models outputs/x/fold?-seed0/cls_eal_fual/stage2

The reference is pipeline("audio-classification") with Wav2Vec2ForSequenceClassification; ours is the pipeline of
predict.py in float32 and bfloat16. Both have a wav2vec2-base encoder with the same random weights and read the same
files: WAV, FLAC, OGG and MP3 with several sampling rates, mono and stereo, with durations as in IEMOCAP. The reference
reads files through ffmpeg; without ffmpeg it gets waveforms that were decoded beforehand, which favours it. With
--models, the benchmark instead measures how bfloat16 changes the UA of trained models on their test speakers. Writes
docs/results/inference_speed.json and prints the ratios last.
"""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from sklearn.metrics import balanced_accuracy_score
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification, pipeline
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.clips import clips
from benchmarks.measuring import in_turn, medians
from configuration_ser_align import SERAlignConfig
from core.audio import SAMPLING_RATE, read_audio
from core.errors import InputError
from core.json_files import read_json, read_lines, write_json
from core.loading import load_pipeline
from core.speed import check_dtype
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.corpora import load_corpus
from recipe.results import library_versions
from speech_ser_align import LONGEST_UTTERANCE

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "docs" / "results" / "inference_speed.json"
LABELS = dict(enumerate(("angry", "happy", "neutral", "sad")))
FORMATS = (("wav", 16_000, 1), ("flac", 44_100, 2), ("ogg", 22_050, 1), ("mp3", 16_000, 1), ("wav", 8_000, 1))


def run_benchmark(count: int, repetitions: int) -> None:
    set_verbosity_error()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), count)
        stage_dir = Path(folder) / "model"
        library = write_model(stage_dir)
        seconds_of_audio = sum(soundfile.info(file).duration for file in files)
        recordings = read_for_reference(files)
        ours = {dtype: load_pipeline(str(stage_dir), dtype=dtype) for dtype in ("float32", *list_fast_dtypes())}
        systems = {"reference": partial(predict_all, library, recordings)}
        systems |= {dtype: partial(predict_all, recognize, files) for dtype, recognize in ours.items()}
        seconds = in_turn(systems, repetitions)
        result = {
            "files": count,
            "seconds_of_audio": seconds_of_audio,
            "repetitions": repetitions,
            "threads": torch.get_num_threads(),
            "reference_reads": "files through ffmpeg" if recordings is files else "waveforms read beforehand",
            "seconds": seconds,
            "ratio": {dtype: medians(seconds)["reference"] / medians(seconds)[dtype] for dtype in ours},
            "largest_difference": compare_scores(stage_dir, ours, files),
            "versions": library_versions(),
        }
    write_json(RESULT, {**read_earlier(), **result})
    for dtype, ratio in result["ratio"].items():
        print(f"{dtype}: ratio {ratio:.2f}, scores within {result['largest_difference'][dtype]:.1e}")


def read_earlier() -> dict[str, Any]:
    return read_json(RESULT) if RESULT.is_file() else {}


def list_fast_dtypes() -> list[str]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        check_dtype("bfloat16", device)
    except InputError as error:
        print(error)
        return []
    return ["bfloat16"]


def read_for_reference(files: list[str]) -> list[Any]:
    """What the library's pipeline is given: it needs ffmpeg to read files."""
    return files if shutil.which("ffmpeg") else [read_audio(file) for file in files]


def predict_all(recognize: Any, recordings: list[Any]) -> list[Any]:
    """Get the predictions of a pipeline for a generator of recordings, which it reads one by one."""
    return list(recognize(recording for recording in recordings))


def write_files(folder: Path, count: int) -> list[str]:
    files = []
    for index, waveform in enumerate(clips(count)):
        suffix, rate, channels = FORMATS[index % len(FORMATS)]
        samples = soxr.resample(waveform, SAMPLING_RATE, rate)
        files.append(str(folder / f"{index}.{suffix}"))
        soundfile.write(files[-1], np.stack([samples] * channels, axis=1), rate)
    return files


def write_model(stage_dir: Path) -> Any:
    """Write a stage folder; return the library's pipeline with the same encoder."""
    torch.manual_seed(0)
    theirs = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(id2label=LABELS))
    ours = SERAlignForAudioClassification(SERAlignConfig(id2label=LABELS, encoder_config=theirs.config))
    ours.encoder.load_state_dict(theirs.wav2vec2.state_dict())
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    SpeechEmotionRecognitionPipeline(model=ours, feature_extractor=extractor).save_pretrained(stage_dir)
    return pipeline("audio-classification", model=theirs, feature_extractor=Wav2Vec2FeatureExtractor(), top_k=None)


def compare_scores(stage_dir: Path, ours: dict[str, Any], files: list[str]) -> dict[str, float]:
    """Measure the largest score difference from the library's pipeline with the same model, over single windows."""
    model = SERAlignForAudioClassification.from_pretrained(stage_dir)
    plain = pipeline("audio-classification", model=model, feature_extractor=Wav2Vec2FeatureExtractor(), top_k=None)
    short = [file for file in files if soundfile.info(file).duration <= LONGEST_UTTERANCE]
    expected = [index_by_label(plain(read_audio(file))) for file in short]
    return {
        dtype: max(
            abs(index_by_label(found)[label] - score)
            for found, scores in zip(predict_all(recognize, short), expected)
            for label, score in scores.items()
        )
        for dtype, recognize in ours.items()
    }


def index_by_label(scores: list[dict[str, Any]]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in scores}


def measure_ua(stage_dirs: list[Path], data_dir: str) -> list[dict[str, Any]]:
    """Measure the UA in percent of each stage folder on its test speakers, in float32 and bfloat16."""
    paths = {row["id"]: row["audio"]["path"] for row in load_corpus("ravdess", data_dir).remove_columns("label")}
    folds = []
    for stage_dir in stage_dirs:
        lines = [line for line in read_lines(stage_dir / "predictions.jsonl") if line["split"] == "test"]
        files, labels = [paths[line["id"]] for line in lines], [line["label"] for line in lines]
        results = read_json(stage_dir / "results.json")
        fold = {"fold": results["fold"], "num_utterances": len(files)}
        for dtype in ("float32", *list_fast_dtypes()):
            recognize = load_pipeline(str(stage_dir), dtype=dtype)
            # older folders do not store it
            recognize.feature_extractor.trim_db = results["arguments"]["trim_db"]  # type: ignore[union-attr]
            found = [scores[0]["label"] for scores in predict_all(recognize, files)]
            fold[dtype] = 100 * balanced_accuracy_score(labels, found)
        folds.append(fold)
    return folds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--models", nargs="*", type=Path, default=[], metavar="DIR", help="stage folders trained on RAVDESS"
    )
    parser.add_argument("--data_dir", metavar="RAVDESS", help="directory that contains Actor_01 to Actor_24")
    given = parser.parse_args()
    if given.models:
        write_json(RESULT, {**read_earlier(), "ua": (folds := measure_ua(given.models, given.data_dir))})
        print(*folds, sep="\n")
    else:
        run_benchmark(given.files, given.repetitions)


if __name__ == "__main__":
    main()
