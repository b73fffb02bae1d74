"""The diarization sections of an experiment's report: the timeline's error rate and the deletion test."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy import stats

from core.audio import read_audio
from core.loading import load_pipeline
from experiments.diarization import concatenate_utterances, measure_drops, score_methods
from experiments.report import make_environment
from experiments.tables import write_csv
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.corpora.rows import read_excerpts
from recording_ser_align import SAMPLING_RATE
from speech_ser_align import trim

TEMPLATE = Path(__file__).parent / "diarization_template.md"

CONDITIONS = {"pauses": "with their original pauses", "no_pauses": "trimmed, without pauses"}
NAMES = {
    "timeline": "**timeline, split at pauses (ours)**",
    "frame_logits": "frame logits of the whole file",
    "whole_file": "one label per file",
    "true_boundaries": "(oracle boundaries, same classifier)",
}
DROPS = {
    "top": "highest weights",
    "random": "random",
    "shifted": "same pattern, moved in time",
}
NUM_RESAMPLES = 9999


def measure_fold(stage_dir: Path, rows: Dataset, trim_db: float | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Diarization errors of each speaker, summed over recordings, and the deletion drops of each utterance."""
    recognize = load_pipeline(str(stage_dir))
    recognize.feature_extractor.trim_db = trim_db  # type: ignore[union-attr]
    errors: dict[str, Any] = {}
    drops: dict[str, Any] = {}
    for speaker in sorted(set(rows["speaker"][:])):
        own = rows.filter(lambda name, speaker=speaker: name == speaker, input_columns="speaker")
        utterances = [(read_audio(excerpt), label) for excerpt, label in zip(read_excerpts(own[:]), own["label"][:])]
        rng = np.random.default_rng(0)
        errors[speaker] = measure_errors(recognize, utterances, rng, settings["utterances"], settings["windows"])
        drops[speaker] = [measure_drops(recognize, trim(waveform, trim_db)[1], rng) for waveform, _ in utterances]
    return {"errors": errors, "drops": drops}


def measure_errors(
    recognize: SpeechEmotionRecognitionPipeline,
    waveforms: list[tuple[np.ndarray, int]],
    rng: np.random.Generator,
    utterances: int,
    windows: list[float],
    recordings: int | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Diarization errors on one speaker's recordings, with their pauses and without.

    Args:
        waveforms: of the speaker's utterances, (samples,), with their class indices.
        utterances: number of utterances of a recording.
        windows: lengths of the sliding windows in seconds.
        recordings: the most that are made; None makes them of all utterances.

    Returns:
        by condition and method: the counts of `score_methods`, summed, and the seconds of all recordings.
    """
    errors = {}
    for condition, pauses in (("pauses", True), ("no_pauses", False)):
        made = concatenate_utterances(waveforms, utterances, pauses, rng)[:recordings]
        each = [score_methods(recognize, recording, windows) for recording in made]
        seconds = sum(len(recording.waveform) for recording in made) / SAMPLING_RATE
        errors[condition] = {
            name: [*np.sum([counts[name] for counts in each], axis=0).tolist(), seconds] for name in each[0]
        }
    return errors


def append_diarization(report: Path, measured: dict[int, dict[str, Any]]) -> None:
    """Append the two sections to report.md and write diarization.csv and deletion.csv beside it."""
    errors = {speaker: counts for fold in measured.values() for speaker, counts in fold["errors"].items()}
    drops = {speaker: listed for fold in measured.values() for speaker, listed in fold["drops"].items()}
    tables = {condition: build_diarization_table(errors, condition) for condition in CONDITIONS}
    deletion = build_deletion_table(drops)
    write_csv(report.parent / "diarization.csv", [row for rows in tables.values() for row in rows])
    write_csv(report.parent / "deletion.csv", deletion)
    section = (
        make_environment()
        .from_string(TEMPLATE.read_text(encoding="utf-8"))
        .render(
            tables=tables,
            deletion=deletion,
            utterances=next(iter(measured.values()))["settings"]["utterances"],
            speakers=len(errors),
            conditions=CONDITIONS,
            names=defaultdict(str, NAMES),
            cuts=DROPS,
        )
    )
    report.write_text(f"{report.read_text(encoding='utf-8').rstrip()}\n\n{section}\n", encoding="utf-8")


def build_diarization_table(errors: dict[str, Any], condition: str) -> list[dict[str, Any]]:
    """A row per method: its error rates over all speakers, its cost, and the timeline's advantage over it."""
    names = list(next(iter(errors.values()))[condition])
    counts = {name: np.array([errors[speaker][condition][name] for speaker in errors]) for name in names}
    rows = []
    for name in names:
        missed, false, confused, spoken, encoded, seconds = counts[name].sum(axis=0)
        rows.append(
            {
                "condition": condition,
                "method": name,
                "error": float((missed + false + confused) / spoken),
                **{k: float(v / spoken) for k, v in (("missed", missed), ("false", false), ("confused", confused))},
                "cost": float(encoded / seconds),
                **_compare(counts["timeline"], counts[name]),
            }
        )
    return rows


def _compare(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Their error rate minus ours, with the 95 % bootstrap interval over speakers; both are (speakers, counts)."""

    def difference(speakers: np.ndarray, axis: int) -> np.ndarray:
        rates = [counts[speakers][..., :3].sum(axis=(-2, -1)) / counts[speakers][..., 3].sum(-1) for counts in both]
        return rates[1] - rates[0]

    both = (ours, theirs)
    speakers = np.arange(len(ours))
    value = float(difference(speakers, -1))
    if len(ours) < 2 or np.array_equal(ours[:, :4], theirs[:, :4]):
        return {"advantage": value, "low": value, "high": value}
    interval = stats.bootstrap(
        (speakers,), difference, vectorized=True, n_resamples=NUM_RESAMPLES, batch=500, method="percentile", rng=0
    ).confidence_interval
    return {"advantage": value, "low": float(interval.low), "high": float(interval.high)}


def build_deletion_table(drops: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row per kind of deletion: mean loss of probability over speakers, and the difference from the top frames."""
    means = {kind: np.array([np.mean([drop[kind] for drop in listed]) for listed in drops.values()]) for kind in DROPS}
    rows = []
    for kind, values in means.items():
        difference = means["top"] - values
        interval = (float(difference.mean()),) * 2
        if len(values) > 1 and kind != "top":
            found = stats.bootstrap((difference,), np.mean, n_resamples=NUM_RESAMPLES, method="percentile", rng=0)
            interval = (float(found.confidence_interval.low), float(found.confidence_interval.high))
        rows.append(
            {
                "cut": kind,
                "drop": float(values.mean()),
                "less": float(difference.mean()),
                "low": interval[0],
                "high": interval[1],
            }
        )
    return rows
