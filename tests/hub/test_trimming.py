"""Trimming and offsets: every way of using a model hears the same speech."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, write_wav
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor, pipeline

from core.audio import read_audio
from core.loading import load_feature_extractor, load_pipeline
from core.shipped import MINI_MODEL
from feature_extraction_ser_align import SERAlignFeatureExtractor, SERAlignWaveformExtractor, add_trimming
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.preparing import UtterancePreparer
from speech_ser_align import trim


def make_speech(seconds=1.5, seed=0):
    """Syllables of noise."""
    times = np.arange(int(seconds * 16000)) / 16000
    noise = np.random.default_rng(seed).standard_normal(len(times))
    return (0.1 * noise * (0.1 + np.sin(7 * times) ** 2)).astype(np.float32)


def by_label(scores):
    return {entry["label"]: entry["score"] for entry in scores}


def extract(extractor, waveform, **options):
    return extractor(waveform, sampling_rate=16000, return_tensors="np", **options)[extractor.model_input_names[0]][0]


EXTRACTORS = {
    "waveform": lambda: Wav2Vec2FeatureExtractor(do_normalize=False),
    "normalized waveform": lambda: Wav2Vec2FeatureExtractor(do_normalize=True),
    "seamless": SeamlessM4TFeatureExtractor,
    "log-mel": SERAlignFeatureExtractor,
}


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_an_extractor_trims_what_it_is_given_and_nothing_that_is_trimmed(kind):
    extractor = add_trimming(EXTRACTORS[kind](), 30.0)
    speech = make_speech()
    recorded = np.pad(speech, 16000)
    start, trimmed = trim(recorded, 30.0)
    assert 14000 < start < 16000 and len(trimmed) < len(recorded) - 28000
    expected = extract(extractor, trimmed, is_trimmed=True)
    np.testing.assert_array_equal(extract(extractor, recorded), expected)
    assert len(extract(extractor, recorded, is_trimmed=True)) > len(expected)
    batch = extractor([recorded, speech], sampling_rate=16000, padding=True, return_tensors="np")
    np.testing.assert_allclose(batch[extractor.model_input_names[0]][0][: len(expected)], expected, atol=1e-6)


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_an_offset_of_the_recorder_changes_no_features(kind):
    extractor = add_trimming(EXTRACTORS[kind](), 30.0)
    recorded = np.pad(make_speech(), 16000) + np.random.default_rng(1).normal(0, 1e-4, 56000).astype(np.float32)
    np.testing.assert_allclose(extract(extractor, recorded + 0.02), extract(extractor, recorded), atol=0.02)


def test_features_of_a_trimmed_utterance_are_those_of_the_library():
    waveform = make_speech() - make_speech().mean()
    ours, library = (
        extract(extractor, waveform)
        for extractor in (SERAlignWaveformExtractor(trim_db=None), Wav2Vec2FeatureExtractor())
    )
    np.testing.assert_allclose(ours, library, atol=1e-5)


def test_an_extractor_is_saved_and_loaded_with_its_threshold(tmp_path):
    extractor = add_trimming(Wav2Vec2FeatureExtractor(return_attention_mask=True), 25.0)
    SpeechEmotionRecognitionPipeline(model=tiny_model(), feature_extractor=extractor).save_pretrained(tmp_path)
    again = load_feature_extractor(str(tmp_path))
    assert (type(again), again.trim_db) == (SERAlignWaveformExtractor, 25.0)
    for wrong in (-30.0, 0, "30"):
        with pytest.raises(ValueError, match="is not a number above 0, or None"):
            SERAlignWaveformExtractor(trim_db=wrong)
    with pytest.raises(ValueError, match="WhisperFeatureExtractor has no version that trims"):
        add_trimming(WhisperFeatureExtractor(), 30.0)


def test_training_takes_the_features_of_the_extractor(tmp_path):
    path = write_wav(tmp_path / "a.wav", seconds=1.0)
    for extractor in (SERAlignWaveformExtractor(trim_db=30), SERAlignFeatureExtractor(trim_db=30)):
        prepared = UtterancePreparer(extractor, 400).prepare(path)
        assert torch.equal(prepared, torch.from_numpy(extract(extractor, read_audio(path))))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shipped", "waveform"])
def test_the_librarys_own_pipeline_gives_the_scores_of_ours(kind, tmp_path, corpora):
    folder = MINI_MODEL
    if kind == "waveform":
        folder = tmp_path / "model"
        extractor = SERAlignWaveformExtractor(trim_db=30, return_attention_mask=True)
        model = tiny_model("wav2vec2-layer")
        with torch.no_grad():
            model.classifier.weight.mul_(20)
        SpeechEmotionRecognitionPipeline(model=model, feature_extractor=extractor).save_pretrained(folder)
    classify = pipeline("audio-classification", str(folder), trust_remote_code=True)
    recognize = load_pipeline(str(folder), device="cpu")
    for path in sorted((corpora / "ravdess" / "Actor_06").glob("03-01-0*-01-01-01-*")):
        waveform = read_audio(path)
        assert by_label(classify(waveform, top_k=None)) == pytest.approx(by_label(recognize(waveform)), abs=1e-4)


@pytest.mark.slow
def test_an_offset_changes_no_answer_and_is_no_speech_itself(corpora):
    recognize = load_pipeline(str(MINI_MODEL), device="cpu")
    for path in sorted((corpora / "ravdess" / "Actor_11").glob("03-01-0*-01-01-01-*")):
        waveform = read_audio(path)
        assert by_label(recognize(waveform + 0.02)) == pytest.approx(by_label(recognize(waveform)), abs=0.02)
    with pytest.raises(ValueError, match="contains no speech"):
        recognize(np.full(48000, 0.05, np.float32))
