"""The study of explanations: its curves and cues on known audio, its summary by hand, a small run on real speech."""

import numpy as np
import pytest
from conftest import tiny_model
from running import run_script
from scipy.signal import sawtooth

from core.json_files import read_json
from docs.build.explanation import build_explanation_page
from inference.saliency import STEP
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from studies.explanation import (
    RANDOM,
    SHARES,
    average_cues,
    average_neutral,
    choose,
    cut,
    measure_curves,
    measure_descriptors,
    summarize_agreement,
    summarize_curves,
)

TIMES = np.arange(32000) / 16000


def saw(hertz: float, level: float = 0.2) -> np.ndarray:
    return (level * sawtooth(2 * np.pi * hertz * TIMES)).astype(np.float32)


def test_the_cues_are_those_of_the_sound():
    """An octave is twelve semitones, 27.5 Hz is 0; a step that is silent has no pitch."""
    everywhere = np.ones(14, bool)
    low, high, loud = (
        average_cues(measure_descriptors(sound), everywhere) for sound in (saw(110), saw(220), saw(110, level=0.4))
    )
    assert high["pitch"] - low["pitch"] == pytest.approx(12, abs=0.2)
    assert low["pitch"] == pytest.approx(24, abs=0.2)
    assert loud["loudness"] > 1.2 * low["loudness"]
    descriptors = measure_descriptors(np.r_[np.zeros(16000, np.float32), saw(110)[:16000]])
    assert average_cues(descriptors, np.arange(14) < 5)["pitch"] is None
    assert average_cues(descriptors, np.arange(14) > 8)["pitch"] == pytest.approx(24, abs=0.3)


def test_steps_are_cut_out_and_joined():
    waveform = np.repeat(np.arange(4, dtype=np.float32), STEP)[:-100]
    kept = cut(waveform, np.array([True, False, False, True]))
    assert len(kept) == 2 * STEP - 100 and set(kept) == {0.0, 3.0}
    assert cut(waveform, np.zeros(4, bool)).tolist() == [0.0] * STEP
    assert choose(np.array([6, 2, 0, 1, 3, 5, 4]), 7).tolist() == [True, True, True, True, False, False, True]


def test_the_curves_are_those_of_what_is_cut_and_what_is_left():
    model = tiny_model("whisper")
    extractor = model.config.build_feature_extractor()
    recognize = SpeechEmotionRecognitionPipeline(model=model, feature_extractor=extractor, device="cpu")
    waveform = (0.1 * np.random.default_rng(0).standard_normal(10 * STEP)).astype(np.float32)
    found = measure_curves(recognize, waveform, np.arange(10)[::-1], 1)  # the last step counts most
    for index, share in enumerate(SHARES):
        middle = (10 - round(10 * share)) * STEP
        for kind, part in (("deletion", waveform[:middle]), ("insertion", waveform[middle:])):
            expected = float(recognize.score_waveforms([part])["probabilities"][0, 1])
            assert found[kind][index] == pytest.approx(expected, abs=1e-6)


def make_line(speaker: str, label: str, clip: float, salient: float, deletion: float = 0.5) -> dict:
    cues = {"loudness": 0.0, "slope_500_1500": None}
    return {
        "speaker": speaker,
        "label": label,
        "clip": {**cues, "pitch": clip},
        "salient": {"occlusion": {**cues, "loudness": 1.0, "pitch": salient}, RANDOM: {**cues, "pitch": clip}},
        "curves": {
            "occlusion": {"deletion": [deletion] * 6, "insertion": [0.5] * 6},
            RANDOM: {"deletion": [0.6] * 6, "insertion": [0.4] * 6},
        },
    }


def test_the_summary_by_hand():
    lines = [
        make_line("a", "neutral", 20.0, 20.0),
        make_line("a", "angry", 24.0, 26.0, deletion=0.3),  # louder and higher, as expected; the slope is unknown
        make_line("b", "sad", 18.0, 16.0),  # lower, as expected, but louder; this speaker has no neutral speech
    ]
    neutral = average_neutral(lines)
    assert neutral == {"a": {"loudness": 0.0, "slope_500_1500": None, "pitch": 20.0}}
    clip = summarize_agreement(lines, neutral, "occlusion", "clip")
    assert (clip["utterances"], clip["agreement"], clip["random"]) == (2, 0.75, 0.0)  # 2 of 2 and 1 of 2; no change
    assert clip["difference"] == 0.75 and clip["interval"] == pytest.approx((0.5, 1.0))  # only b, and only a
    found = summarize_agreement(lines, neutral, "occlusion", "neutral")
    assert (found["utterances"], found["agreement"], found["random"]) == (1, 1.0, 0.5)  # random: higher, not louder
    curves = summarize_curves(lines, "occlusion")
    assert curves["deletion_mean"] == pytest.approx((0.5 + 0.3 + 0.5) / 3)
    assert curves["deletion_better"] == pytest.approx((0.1 + 0.3 + 0.1) / 3)
    assert curves["insertion_better"] == pytest.approx(0.1)
    assert curves["deletion_interval"] == pytest.approx((0.1, 0.2))


@pytest.mark.slow
def test_a_small_run_on_real_speech_continues_where_it_was_interrupted(corpora, tmp_path):
    argv = ["--model", "mini", "--data_dir", corpora, "--per_speaker", 2, "--output_dir", tmp_path / "kept"]
    run_script("studies/explanation.py", *argv, "--results", tmp_path / "first.json")
    first, kept = read_json(tmp_path / "first.json"), sorted((tmp_path / "kept").glob("*/*.json"))
    assert first["utterances"] == len(kept) == 2 * first["speakers"]
    kept[0].unlink()
    run_script("studies/explanation.py", *argv, "--results", tmp_path / "second.json")
    assert read_json(tmp_path / "second.json")["curves"] == first["curves"]
    by_method = {row["method"]: row for row in first["curves"]}
    assert by_method["occlusion"]["deletion_mean"] < by_method["random"]["deletion_mean"]


def test_the_page_says_what_was_measured():
    page = build_explanation_page()
    assert "- angry: higher loudness, higher pitch, higher spectral slope\n" in page
    assert page.count("| occlusion |") == 3 and "better than random" in page
