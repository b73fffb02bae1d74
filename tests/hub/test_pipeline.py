"""pipeline("speech-emotion-recognition"): scores, timeline, and loading from a model folder in a new process."""

import textwrap
import tracemalloc
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, tiny_model
from datasets import Audio, Dataset
from running import fresh, lines_of
from transformers import Wav2Vec2FeatureExtractor
from transformers.pipelines.pt_utils import KeyDataset

from core.loading import load_feature_extractor
from core.shipped import MINI_MODEL
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from speech_ser_align import HOP, cut_recording

pytestmark = pytest.mark.slow

RATE = 16000


def make_pipeline(model, extractor=None, **options):
    extractor = extractor or Wav2Vec2FeatureExtractor(return_attention_mask=True)
    return SpeechEmotionRecognitionPipeline(model=model, feature_extractor=extractor, **options)


@pytest.fixture(scope="module")
def recognize():
    model = SERAlignForAudioClassification.from_pretrained(MINI_MODEL)
    return make_pipeline(model, load_feature_extractor(str(MINI_MODEL)))


def sounds(*parts):
    """(seconds, level) each: noise of that level."""
    rng = np.random.default_rng(0)
    return np.concatenate([level * rng.standard_normal(int(s * RATE)) for s, level in parts]).astype(np.float32)


def by_label(scores):
    return {entry["label"]: entry["score"] for entry in scores}


# ------------------------------------------------------------------------------------------- pieces


def test_a_short_recording_is_an_utterance_and_its_phrases():
    waveform = sounds((1, 1e-5), (1.5, 0.3), (1, 1e-5), (4.9, 0.3))
    pieces = list(cut_recording(iter([waveform]), True, window=2.0, trim_db=30))
    assert [piece["phrase"] for piece in pieces] == [-1, 0, 1, 1, 1, 1]
    assert pieces[0]["start"] == pytest.approx(RATE, abs=1100)  # trimmed in front
    assert pieces[1]["end"] - pieces[1]["start"] == pytest.approx(1.5 * RATE, abs=2200)
    windows = pieces[2:]
    assert all(piece["end"] - piece["start"] == 2 * RATE for piece in windows)
    assert windows[-1]["end"] == len(waveform)
    for first, second in pairwise(windows):
        assert first["end"] - second["start"] >= RATE  # they overlap by at least half
    assert len(list(cut_recording(iter([waveform]), False))) == 1


def test_a_long_recording_is_its_phrases_alone():
    waveform = sounds((10, 0.3), (1, 1e-5), (8, 0.3))
    for with_phrases in (True, False):
        pieces = list(cut_recording(iter([waveform]), with_phrases))
        assert {piece["phrase"] for piece in pieces} == {0, 1}


def test_fifteen_seconds_are_an_utterance_and_more_are_not():
    blocks = [sounds((15, 0.3)), sounds((1, 0.3))]
    assert next(cut_recording(iter(blocks[:1]), True))["phrase"] == -1
    assert {piece["phrase"] for piece in cut_recording(iter(blocks), True)} == {0}


# -------------------------------------------------------------------------------------------- calls


def test_scores_are_those_of_the_model_and_its_feature_extractor():
    model = tiny_model("wav2vec2-group")
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    waveform = sounds((2, 0.1))
    with torch.no_grad():
        inputs = extractor(waveform, sampling_rate=RATE, return_tensors="pt")
        expected = model(**inputs).logits.softmax(-1)[0].tolist()
    found = make_pipeline(model, extractor)(waveform)
    assert [entry["score"] for entry in found] == pytest.approx(sorted(expected, reverse=True), abs=1e-6)
    assert list(by_label(found).values()) == pytest.approx([expected[model.config.label2id[e["label"]]] for e in found])


def test_a_long_recordings_scores_are_the_mean_over_its_phrases_by_duration(recognize):
    found = recognize(sounds((10, 0.3), (1, 0.0), (8, 0.1)), return_timeline=True, window=60)
    edge = 1024 / RATE  # of a pause, up to 64 ms belong to a phrase
    parts = sounds((edge, 0.0), (8, 0.1)), sounds((10, 0.3), (edge, 0.0))
    short, long = (by_label(recognize(part)) for part in parts)
    assert [segment["label"] for segment in found["timeline"]] == [max(p, key=p.get) for p in (long, short)]
    for entry in found["scores"]:
        mean = (10 * long[entry["label"]] + 8 * short[entry["label"]]) / 18
        assert entry["score"] == pytest.approx(mean, abs=0.03)  # edges of phrases lie on a grid of 8 ms
    assert found["duration"] == 19.0


def test_a_phrase_that_is_split_into_windows_counts_by_its_duration(recognize):
    """And not by that of its windows, which overlap: 10 s of noise in three windows of 6 s, and 5 s of a buzz."""
    buzz = 0.2 * np.sign(np.sin(2 * np.pi * 180 * np.arange(5 * RATE) / RATE)).astype(np.float32)
    recording = np.concatenate([sounds((10, 0.3), (1, 0.0)), buzz])
    found, second = (by_label(recognize(each, window=6)) for each in (recording, buzz))
    starts = np.linspace(0, 4 * RATE + 1024, 3).astype(int)  # 64 ms of the pause belong to the phrase
    windows = recognize.score_waveforms([recording[start:][: 6 * RATE] for start in starts])["probabilities"].numpy()
    for label, first in zip(recognize.model.config.id2label.values(), windows.mean(axis=0)):
        assert found[label] == pytest.approx((10 * first + 5 * second[label]) / 15, abs=0.01)


def test_batches_lists_and_company_change_no_score(recognize, tmp_path):
    recordings = [sounds((s, 0.2), (0.5, 1e-5), (5, 0.1)) for s in (0.4, 3, 12)]
    soundfile.write(tmp_path / "a.wav", recordings[0], RATE, subtype="FLOAT")
    recordings.append(str(tmp_path / "a.wav"))
    alone = [recognize(recording, return_timeline=True) for recording in recordings]
    for together in (
        recognize(recordings, return_timeline=True),
        recognize(recordings, return_timeline=True, batch_size=4),
    ):
        for one, other in zip(alone, together):
            assert by_label(other["scores"]) == pytest.approx(by_label(one["scores"]), abs=1e-5)
            for left, right in zip(one["timeline"], other["timeline"], strict=True):
                assert left["label"] == right["label"] and left["score"] == pytest.approx(right["score"], abs=1e-5)
    assert alone[0]["timeline"] == alone[3]["timeline"]  # the file and its waveform


def test_a_recording_that_cannot_be_read_stops_all_or_stands_in_its_place(recognize, tmp_path):
    good = [sounds((1, 0.2)), sounds((20, 0.1))]
    (tmp_path / "text.wav").write_text("not audio")
    recordings = [good[0], str(tmp_path / "text.wav"), good[1], np.zeros(RATE, np.float32)]
    with pytest.raises(ValueError, match="cannot be read as audio"):
        recognize(recordings)
    found = recognize(recordings, on_error="return")
    assert [type(answer) for answer in found] == [list, ValueError, list, ValueError]
    assert "no speech" in str(found[3])
    for answer, recording in zip(found[::2], good):
        assert by_label(answer) == pytest.approx(by_label(recognize(recording)), abs=1e-5)
    with pytest.raises(ValueError, match="on_error='skip' is not one of raise, return"):
        recognize(good, on_error="skip")


def test_recordings_are_read_as_they_are_needed(recognize):
    """From a generator, of which a consumer that stops early leaves the rest."""
    given = []

    def recordings():
        for number in range(1000):
            given.append(number)
            yield sounds((1, 0.2))

    answers = recognize(recordings(), batch_size=2)
    assert len(given) == 1  # the library looks at the first
    next(answers)
    answers.close()
    assert len(given) <= 3 * 8  # two pools of four batches, and what ends the second


def test_gain_and_silence_around_it_do_not_change_a_timelines_labels(recognize):
    waveform = sounds((0.5, 0.0), (2, 0.2), (0.5, 0.0), (3, 0.1))
    plain = recognize(waveform, return_timeline=True)["timeline"]
    louder = recognize(3 * waveform, return_timeline=True)["timeline"]
    for left, right in zip(plain, louder, strict=True):
        assert left == {**right, "score": pytest.approx(right["score"], abs=1e-4)}
    before = np.zeros(63 * HOP, np.float32)
    later = recognize(np.concatenate([before, waveform]), return_timeline=True)["timeline"]
    for left, right in zip(plain, later, strict=True):
        assert left["label"] == right["label"] and right["score"] == pytest.approx(left["score"], abs=1e-4)
        assert right["start"] - len(before) / RATE == pytest.approx(left["start"], abs=1e-6)


@pytest.mark.parametrize(
    "given", [{"top_k": 0}, {"top_k": 1.5}, {"channel": "left"}, {"channel": -1}, {"batch_size": 0}, {"channel": True}]
)
def test_a_count_that_is_none_is_refused(recognize, given):
    with pytest.raises(ValueError, match=r"is not a whole number of at least [01]$"):
        recognize(np.zeros(16000, np.float32), **given)


def test_speech_that_cancels_in_the_mean_is_not_called_silence(recognize):
    speech, _ = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")
    with pytest.raises(ValueError, match="2 channels that cancel each other"):
        recognize(np.stack([speech, -speech], axis=1))


def test_parameters_are_checked_and_those_of_the_pipeline_are_defaults(recognize):
    waveform = sounds((3, 0.2))
    for wrong, message in (
        ({"window": 0}, "window=0 is not a number of seconds from 0.2 to 60"),
        ({"wndow": 2}, "wndow"),
    ):
        with pytest.raises(ValueError, match=message):
            recognize(waveform, **wrong)
    set_once = make_pipeline(recognize.model, recognize.feature_extractor, top_k=2, return_timeline=True)
    assert len(set_once(waveform)["scores"]) == 2
    assert len(set_once(waveform, top_k=3)["scores"]) == 3
    for silent in (np.zeros(RATE, np.float32), np.zeros(0, np.float32)):
        with pytest.raises(ValueError, match="contains no speech: it is empty or silent"):
            recognize(silent)


def test_what_is_not_said_is_as_documented(recognize):
    """And the duration is that of the recording, to the sample."""
    waveform = sounds((5.5, 0.3))
    found = recognize(waveform, return_timeline=True)
    assert found == recognize(waveform, return_timeline=True, pause=0.25, window=2.0, smoothing=0.0, min_duration=0.3)
    assert found["duration"] == 5.5
    assert (recognize._batch_size, make_pipeline(tiny_model())._batch_size) == (16, 1)


def test_the_deciding_frames_and_the_outline_come_with_the_answer(recognize):
    """Against the model itself on each piece alone, and a loop over 10 ms."""
    for waveform in (
        sounds((1, 1e-5), (3, 0.2), (0.5, 1e-5), (1, 0.1)),
        sounds((6, 0.3), (1, 1e-5), (1.333, 0.1), (8, 0.2)),
    ):
        plain = recognize(waveform, return_timeline=True)
        found = recognize(waveform, return_timeline=True, return_frames=True, return_outline=True)
        assert {name: found[name] for name in plain} == plain
        best, expected = -1.0, None
        for piece in cut_recording(iter([waveform]), False, trim_db=recognize.trim_db):
            inputs = recognize.feature_extractor(piece["waveform"], sampling_rate=RATE, return_tensors="pt")
            with torch.no_grad():
                output = recognize.model(**inputs)
            importance = float(output.logits.softmax(-1).max()) * len(piece["waveform"])
            if importance > best:
                best, expected = importance, (piece, output)
        piece, output = expected
        frames = found["frames"]
        assert frames["label"] == recognize.model.config.id2label[int(output.logits.argmax())]
        assert np.array_equal(frames["waveform"], piece["waveform"])
        assert (frames["start"], frames["end"]) == pytest.approx((piece["start"] / RATE, piece["end"] / RATE))
        assert frames["weights"] == pytest.approx(output.frame_weights[0].numpy(), abs=1e-5)
        peaks = [np.abs(waveform[start : start + 160]).max() for start in range(0, len(waveform), 160)]
        assert found["outline"].tolist() == pytest.approx(peaks, abs=0)
        assert set(recognize(waveform, return_frames=True)) == {"scores", "frames", "unsure", "duration", "warnings"}


def test_waveforms_are_scored_as_they_are(recognize):
    waveforms = [sounds((s, 0.2)) for s in (0.5, 2.0)]
    found = recognize.score_waveforms([*waveforms, np.pad(waveforms[0], RATE)])
    assert found["frame_mask"].sum(dim=1).tolist() == [12, 49, 62]
    for index, waveform in enumerate(waveforms):
        inputs = recognize.feature_extractor(waveform, sampling_rate=RATE, return_tensors="pt")
        with torch.no_grad():
            output = recognize.model(**inputs)
        mask = found["frame_mask"][index]
        assert torch.allclose(found["probabilities"][index], output.logits[0].softmax(-1), atol=1e-6)
        assert torch.allclose(found["frame_logits"][index][mask], output.frame_logits[0], atol=1e-5)
        assert torch.allclose(found["frame_weights"][index][mask], output.frame_weights[0], atol=1e-6)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(recognize, tmp_path):
    """Sixteen minutes against four, read from a file."""
    peaks = {}
    minute = np.concatenate([sounds((4, 0.2), (1, 1e-5)) for _ in range(12)])
    for minutes in (4, 16):
        path = tmp_path / f"{minutes}.wav"
        soundfile.write(path, np.tile(minute, minutes), RATE)
        tracemalloc.start()
        options = {"return_frames": True, "return_outline": True, "batch_size": 4}  # many pools in either
        found = recognize(str(path), return_timeline=True, window=4.0, **options)
        peaks[minutes] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found["duration"] == 60 * minutes
        assert found["timeline"][-1]["end"] == pytest.approx(60 * minutes - 1, abs=0.1)
    assert peaks[16] < 1.1 * peaks[4]


FRESH = textwrap.dedent(
    """
    import json, sys
    from transformers import pipeline
    recognize = pipeline("speech-emotion-recognition", sys.argv[1], trust_remote_code=True)
    found = recognize(sys.argv[2], return_timeline=True)
    inferred = pipeline(model=sys.argv[1], trust_remote_code=True)
    library = pipeline("audio-classification", sys.argv[1], trust_remote_code=True)
    import soundfile
    scores = library(soundfile.read(sys.argv[2], dtype="float32")[0], top_k=None)
    print("RESULT" + json.dumps([found, type(inferred).__name__, scores, "librosa" in sys.modules]))
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["waveform", "shipped"])
def test_a_saved_folder_brings_its_pipeline_to_a_fresh_process(kind, recognize, tmp_path):
    saved = make_pipeline(tiny_model("wav2vec2-layer")) if kind == "waveform" else recognize
    folder = tmp_path / "model"
    saved.save_pretrained(folder)
    soundfile.write(tmp_path / "a.wav", sounds((1, 1e-4), (3, 0.2), (0.5, 1e-5), (2, 0.1)), RATE, subtype="FLOAT")
    result, _ = fresh(FRESH, folder, tmp_path / "a.wav", home=tmp_path / "hf")
    found, inferred, scores, slow = result
    expected = saved(str(tmp_path / "a.wav"), return_timeline=True)
    assert by_label(found["scores"]) == pytest.approx(by_label(expected["scores"]), abs=1e-5)
    assert [s["label"] for s in found["timeline"]] == [s["label"] for s in expected["timeline"]]
    assert inferred == "SpeechEmotionRecognitionPipeline"
    if kind == "waveform":  # trained without trimming: the library's own pipeline hears the same
        assert by_label(scores) == pytest.approx(by_label(expected["scores"]), abs=1e-5)
    assert not slow  # librosa alone takes longer to import than the model to answer


@pytest.mark.slow
def test_its_scores_of_unseen_actors_are_those_that_the_card_counts(recognize, corpora):
    """From the file, trimmed as in training: what predictions.jsonl says."""
    stored = {line["id"]: line for line in lines_of(MINI_MODEL / "predictions.jsonl") if line["split"] == "test"}
    for path in sorted((corpora / "ravdess").rglob("*.flac")) + sorted((corpora / "ravdess").rglob("*.wav")):
        if path.stem in stored:
            line = stored.pop(path.stem)
            assert by_label(recognize(str(path))) == pytest.approx(line["probabilities"], abs=1e-3), path.name
    assert not stored


def test_rows_of_datasets_are_answered_as_their_files(recognize):
    path = str(ROOT / "examples" / "speech.flac")
    rows = Dataset.from_dict({"audio": [path, path]}).cast_column("audio", Audio(decode=False))
    loaded, rate = librosa.load(path, sr=None)
    expected = recognize(path)
    scores = [entry["score"] for entry in expected]
    given = [rows[0]["audio"], {"bytes": Path(path).read_bytes(), "path": None}, (loaded, rate), (rate, loaded)]
    one_by_one = [recognize((rate, loaded)), recognize(torch.from_numpy(loaded)[None])]
    for answer in (*recognize(KeyDataset(rows, "audio")), *recognize(given), *one_by_one):
        assert [entry["label"] for entry in answer] == [entry["label"] for entry in expected]
        np.testing.assert_allclose([entry["score"] for entry in answer], scores, atol=1e-5)
    assert recognize(rows[0]) == recognize(path)
    with pytest.raises(ValueError, match="a dict with file is not a recording: it needs array"):
        recognize({"file": path})
