"""Prosody: tones of known pitch, level and times against NumPy in float64, and their way through the model."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import batch, tiny_model, utterances
from scipy.special import ndtr
from transformers import AutoTokenizer, CanineTokenizer

from configuration_ser_align import SERAlignConfig
from feature_extraction_ser_align import SERAlignWaveformExtractor
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from prosody_ser_align import UTTERANCE_VALUES, WORD_VALUES, describe_utterance, describe_words, measure_frames
from speech_ser_align import trim
from text_ser_align import read_text_config
from words_ser_align import collate_words, join_words, locate_words, read_prosody, tokenize

RATE = 16000
FUSIONS = ("concat", "gated", "cross_attention", "late")
ALL = ["embedding", "word", "utterance"]
# Seconds, Hz and gain of the vowels of a made-up utterance of 2.5 s, with pauses between them.
VOWELS = ((0.2, 0.6, 110.0, 1.0), (0.9, 1.5, 220.0, 0.5), (1.6, 2.3, 165.0, 0.25))
WORDS = [
    {"word": word, "start": start, "end": end} for word, (start, end, *_) in zip(("Great", "dogs", "news"), VOWELS)
]
SECONDS = (0.9, 0.6, 0.45, 1.1)


def make_voice(gain=0.1):
    """Harmonics of known pitch, each vowel of 1 / k, with silence around them."""
    times = np.arange(int(2.5 * RATE)) / RATE
    waveform = np.zeros(len(times))
    for start, end, pitch, level in VOWELS:
        inside = (times >= start) & (times < end)
        waveform += inside * level * sum(np.sin(2 * np.pi * k * pitch * times) / k for k in range(1, 9))
    return (gain * waveform).astype(np.float32)


def test_words_have_the_pitch_level_duration_and_pause_that_they_were_made_with():
    for gain in (0.1, 0.003):  # the recording level does not matter
        found = describe_words(measure_frames(make_voice(gain)), WORDS)
        before = None
        for row, (start, end, pitch, level) in zip(found, VOWELS):
            values = dict(zip(WORD_VALUES, row))
            assert values["pitch"] == pytest.approx(np.log2(pitch / 150), abs=0.02)
            assert values["voiced_share"] > 0.9
            # Frames of 64 ms at the edges are softer: about a tenth of a word, by a few dB.
            assert values["energy"] == pytest.approx(20 * np.log10(level) / 20, abs=0.06)
            assert values["duration"] == pytest.approx(np.log2((end - start) / 0.25), abs=1e-5)
            assert values["pause"] == pytest.approx(0 if before is None else start - before, abs=1e-6)
            assert row[-1] == 1
            before = end


def test_the_utterance_has_the_statistics_of_its_frames():
    frames = measure_frames(make_voice())
    found = dict(zip(UTTERANCE_VALUES, describe_utterance(frames)))
    pitch = frames.pitch[frames.is_voiced].astype(np.float64)
    seconds = np.array([end - start for start, end, *_ in VOWELS])
    expected = np.average([np.log2(hertz / 150) for *_, hertz, _ in VOWELS], weights=seconds)
    assert found["pitch_mean"] == pytest.approx(expected, abs=0.05)
    assert found["pitch_sd"] == pytest.approx(np.sqrt(np.mean((pitch - pitch.mean()) ** 2)), abs=1e-5)
    assert found["pitch_range"] == pytest.approx(np.log2(220 / 110), abs=0.05)
    assert found["energy_range"] == pytest.approx(-np.log10(0.25), abs=0.1)  # 12 dB in steps of 20
    assert found["voiced_rate"] == pytest.approx(3 / 2.5 * 0.25, abs=0.002)
    assert found["pause_share"] == pytest.approx(1 - seconds.sum() / 2.5, abs=0.1)  # each edge reaches half a frame


def test_silence_short_words_and_words_beyond_the_recording_have_finite_values():
    frames = measure_frames(np.zeros(8000, np.float32))
    assert np.isfinite(describe_utterance(frames)).all()
    words = [
        {"start": 0.1, "end": 0.1},
        {"start": -0.5, "end": -0.1},
        {"start": 0.4, "end": 9.0},
        {"start": 7, "end": 8},
    ]
    found = describe_words(frames, words)
    assert np.isfinite(found).all()
    assert found[:, -1].tolist() == [1, 0, 1, 0]
    assert found[2, 3] == pytest.approx(np.log2((0.51 - 0.4) / 0.25), abs=1e-5)  # the part within the frames
    assert not found[[1, 3]].any()


def test_each_token_belongs_to_its_word(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    words = [{"word": word, "start": 0, "end": 1} for word in ("Great", " dogz ", "sad", "news")]
    places, ids = locate_words(tokenizer, words), tokenize(tokenizer, join_words(words))
    assert len(places) == len(ids)
    spelled = [tokenizer.convert_ids_to_tokens([int(token)])[0].removeprefix("##") for token in ids]
    joined = {number: "".join(t for t, place in zip(spelled, places) if place == number) for number in range(-1, 4)}
    assert joined == {-1: "[CLS][SEP]", 0: "great", 1: "dogz", 2: "sad", 3: "news"}
    assert len(locate_words(tokenizer, [])) == 0
    slow = CanineTokenizer()  # of letters, in Python
    with pytest.raises(ValueError, match="needs a fast tokenizer"):
        locate_words(slow, words)


# ------------------------------------------------------------------------------------------- model


def make_model(folder, fusion="gated", levels=ALL, **fields):
    text = {"text_encoder_config": read_text_config(folder), "text_fusion": fusion, "text_levels": levels}
    model = tiny_model("wav2vec2-layer", **text, **fields)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for state in (model.fusion.missing, model.fusion.no_times):
            if state is not None:
                state.normal_(generator=generator)
    return model


def make_rows(folder, levels=ALL):
    """Tokens and prosody: of words with times, of none, of a text without times, and of other words with times."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    voice = make_voice()
    rows = []
    for text, words, part in (
        (join_words(WORDS), WORDS, voice),
        (None, None, voice[:9000]),
        ("sad kids", None, voice[3000:20000]),
        (join_words(WORDS[1:]), WORDS[1:], voice),
    ):
        rows.append((tokenize(tokenizer, text), read_prosody(tokenizer, levels, part, words)))
    return rows


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_alone_is_as_in_a_batch_with_rows_without_words_or_times(fusion, tiny_bert):
    for levels in (ALL, ["word"], ["utterance"], ["embedding", "word"]):
        model, rows = make_model(tiny_bert, fusion, levels), make_rows(tiny_bert, levels)
        speech = utterances(model, SECONDS)
        words = collate_words(*zip(*rows))
        if "word_prosody" in words:  # what stands in the padding does not matter
            words["word_prosody"] = torch.where(words["text_mask"][..., None] == 1, words["word_prosody"], 3.0)
        together = model(**batch(model, speech, 5.0), **words)
        for row, (values, (ids, prosody)) in enumerate(zip(speech, rows)):
            alone = model(input_values=values[None], **collate_words([ids], [prosody]))
            for name in ("logits", "voice_logits", "text_logits", "embedding"):
                torch.testing.assert_close(alone[name][0], together[name][row], atol=1e-5, rtol=0, msg=name)


@torch.no_grad()
def test_words_are_the_sum_of_their_levels_in_numpy(tiny_bert):
    model, rows = make_model(tiny_bert), make_rows(tiny_bert)
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    speech = utterances(model, SECONDS)
    found = model(**batch(model, speech), **collate_words(*zip(*rows)))

    def project(name, values):
        return values @ weights[f"fusion.{name}.weight"].T + weights[f"fusion.{name}.bias"]

    for row, (ids, prosody) in enumerate(rows):
        said = weights["fusion.missing"][None]
        if len(ids):
            states = model.text_encoder(input_ids=ids[None]).last_hidden_state[0].double().numpy()
            table = prosody["word_prosody"].double().numpy()
            table = np.zeros((len(ids), len(WORD_VALUES) + 1)) if len(table) == 0 else table
            known = project("word_prosody", table[:, :-1])
            said = project("projection", states) + np.where(table[:, -1:] > 0, known, weights["fusion.no_times"])
            said = said * ndtr(said)  # GELU
        said = said + project("utterance_prosody", prosody["utterance_prosody"].double().numpy())
        expected = project("text_classifier", said.mean(axis=0))
        np.testing.assert_allclose(found.text_logits[row].numpy(), expected, atol=2e-5)


@torch.no_grad()
def test_a_row_without_times_has_the_learned_state_whatever_its_voice(tiny_bert):
    model = make_model(tiny_bert, levels=["word"])
    values = utterances(model, [1.0])[0][None]
    (ids, _), (_, none) = make_rows(tiny_bert, ["word"])[2], make_rows(tiny_bert, ["word"])[1]
    for words in (collate_words([ids], [none]), collate_words([ids])):
        found = model(input_values=values, **words).text_logits[0]
        expected = model.fusion.text_classifier(F.gelu(model.fusion.no_times))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_each_level_is_trained_and_none_has_weights_that_are_off(tiny_bert):
    names = {"projection": "embedding", "word_prosody": "word", "no_times": "word", "utterance_prosody": "utterance"}
    for levels in (["embedding"], ["word"], ["utterance"], ALL):
        model, rows = make_model(tiny_bert, levels=levels).train(), make_rows(tiny_bert, levels)
        words = collate_words(*zip(*rows))
        model(**batch(model, utterances(model, SECONDS)), **words, labels=torch.tensor([2, 0, 1, 1])).loss.backward()
        grown = {name.split(".")[1] for name, weight in model.named_parameters() if weight.grad is not None}
        there = {name.split(".")[1] for name in model.state_dict() if name.startswith("fusion.")}
        expected = {name for name, level in names.items() if level in levels}
        assert there & names.keys() == expected and expected <= grown


def test_what_does_not_fit_the_levels_is_refused(tiny_bert):
    model, rows = make_model(tiny_bert), make_rows(tiny_bert)
    inputs, words = batch(model, utterances(model, SECONDS)), collate_words(*zip(*rows))
    plain = make_model(tiny_bert, levels=["embedding"])
    for other, given, message in (
        (model, {**words, "utterance_prosody": None}, "utterance_prosody is missing, but must have the shape"),
        (model, {**words, "word_prosody": words["word_prosody"][:, 1:]}, "word_prosody is of the shape"),
        (plain, words, "is for a model with the level 'word'"),
        (tiny_model("wav2vec2-layer"), {"utterance_prosody": words["utterance_prosody"]}, "reads no words"),
    ):
        with pytest.raises(ValueError, match=message):
            other(**inputs, **given)
    for levels in ([], ["words"], "word"):
        with pytest.raises((ValueError, TypeError), match="text_levels"):
            SERAlignConfig(text_levels=levels)


def test_a_saved_model_and_the_pipeline_hear_the_same_prosody(tiny_bert, tmp_path):
    model = make_model(tiny_bert)
    with torch.no_grad():
        model.fusion.classifier.weight.mul_(10)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    extractor = SERAlignWaveformExtractor(return_attention_mask=True, trim_db=30.0)
    model.save_pretrained(tmp_path)
    again = SERAlignForAudioClassification.from_pretrained(tmp_path)
    assert again.config.text_levels == ALL
    recognize = SpeechEmotionRecognitionPipeline(again, feature_extractor=extractor, tokenizer=tokenizer)
    voice = make_voice()
    start, speech = trim(voice, 30.0)
    later = [{**word, "start": word["start"] - start / RATE, "end": word["end"] - start / RATE} for word in WORDS]
    for text, words in ((WORDS, later), (join_words(WORDS), None), (None, None)):
        found = {each["label"]: each["score"] for each in recognize({"audio": voice, "text": text})}
        ids = tokenize(tokenizer, text and join_words(WORDS))
        prosody = read_prosody(tokenizer, ALL, speech, words)
        inputs = extractor(speech, sampling_rate=RATE, return_tensors="pt", is_trimmed=True)
        with torch.no_grad():
            logits = model(**inputs, **collate_words([ids], [prosody])).logits
        expected = dict(zip(model.config.id2label.values(), logits.softmax(-1)[0].tolist()))
        assert found == pytest.approx(expected, abs=1e-5)
    many = recognize(
        [{"audio": voice, "text": WORDS}, voice[: RATE * 2], {"audio": voice, "text": "sad"}], batch_size=3
    )
    for answer, one in zip(many, ({"audio": voice, "text": WORDS}, voice[: RATE * 2], {"audio": voice, "text": "sad"})):
        assert [each["score"] for each in answer] == pytest.approx([each["score"] for each in recognize(one)], abs=1e-5)
    timeline = recognize({"audio": voice, "text": WORDS}, return_timeline=True)["timeline"]
    assert timeline and all(np.isfinite(part["score"]) for part in timeline)
