"""Words on the command line: given, beside a recording, and transcribed, in every output."""

import io

import numpy as np
import pytest
import torch
import webvtt
from conftest import tiny_model, write_wav
from praatio import textgrid
from running import lines_of, predict
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from core.loading import load_pipeline
from inference.outputs import format_textgrid, format_webvtt
from inference.spoken import place_words
from inference.transcription import MOST_COMPRESSED, Transcriber, measure_compression
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from text_ser_align import read_text_config

WORDS = [(0.1, 0.5, "I"), (0.5, 0.9, 'am "so"'), (1.2, 1.2, "a"), (1.4, 1.9, "<glad>"), (4.0, 4.4, "now")]
RECORD = {
    "duration": 5.0,
    "timeline": [
        {"start": 0.0, "end": 1.0, "label": "sad", "score": 0.8},
        {"start": 1.5, "end": 3.5, "label": "happy", "score": 0.7},
    ],
    "words": [{"word": word, "start": start, "end": end} for start, end, word in WORDS],
}


@pytest.fixture(scope="module")
def reader(tiny_bert, tmp_path_factory):
    """The folder of a model that reads words."""
    folder = tmp_path_factory.mktemp("reader")
    model = tiny_model("wav2vec2-layer", text_encoder_config=read_text_config(tiny_bert))
    with torch.no_grad():
        model.fusion.classifier.weight.mul_(10)
    extractor, tokenizer = (
        Wav2Vec2FeatureExtractor(return_attention_mask=True),
        AutoTokenizer.from_pretrained(tiny_bert),
    )
    SpeechEmotionRecognitionPipeline(model, feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """The folder of an untrained Whisper that writes single letters, with alignment heads."""
    folder = tmp_path_factory.mktemp("asr")
    names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"]
    names += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    names += [f"<|{0.02 * step:.2f}|>" for step in range(1501)]
    letters = [*"abcdefghijklmnopqrstuvwxyz", "\u0120"]
    tokenizer = WhisperTokenizer({letter: index for index, letter in enumerate(letters)}, [], unk_token="a")
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    tokenizer.save_pretrained(folder)
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(names)))
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_mel_bins": 80}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    special = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    torch.manual_seed(1)
    model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=len(tokenizer), **sizes, **special))
    settings = {"alignment_heads": [[1, 0]], "no_timestamps_token_id": ids["<|notimestamps|>"], "max_new_tokens": 12}
    settings |= {"lang_to_id": {"<|en|>": ids["<|en|>"]}, "is_multilingual": True, "language": "en"}
    settings |= {"task_to_id": {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}}
    settings |= {"task": "transcribe", "max_initial_timestamp_index": 50, "suppress_tokens": [end]}
    model.generation_config = GenerationConfig(**settings, **special)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def test_every_word_is_in_the_segment_that_it_is_in_or_nearest_to():
    assert place_words(RECORD) == ['I am "so" a', "<glad> now"]  # 1.2 is nearer to 1.0 than to 1.5
    assert place_words({**RECORD, "timeline": []}) == []


def test_praats_reader_finds_a_tier_of_words_and_a_subtitle_reader_what_is_said(tmp_path):
    (tmp_path / "a.TextGrid").write_text(format_textgrid(RECORD), "utf-8")
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False)
    assert grid.tierNames == ("emotion", "words")
    assert [tuple(entry) for entry in grid.getTier("words").entries] == [
        (start, end, word) for start, end, word in WORDS if end > start
    ]
    assert [entry.label for entry in grid.getTier("emotion").entries] == ["sad", "happy"]
    captions = list(webvtt.from_buffer(io.StringIO(format_webvtt(RECORD))))
    assert [caption.raw_text.split("\n") for caption in captions] == [
        ["sad", 'I am "so" a'],
        ["happy", "&lt;glad&gt; now"],
    ]


@pytest.mark.slow
def test_words_that_are_given_and_that_are_beside_a_recording(reader, tmp_path):
    spoken, silent = (str(write_wav(tmp_path / f"{name}.wav", 1.2, seed=seed)) for seed, name in enumerate("ab"))
    (tmp_path / "a.txt").write_text("\ufeffGreat\nnews ")
    recognize = load_pipeline(str(reader))
    expected = {entry["label"]: entry["score"] for entry in recognize({"audio": spoken, "text": "Great news"})}
    predict(tmp_path, "--model", reader, "--texts", "--output", tmp_path / "all.jsonl", "--quiet")
    said, unsaid = lines_of(tmp_path / "all.jsonl")
    assert said["text"] == "Great news" and "text" not in unsaid and "alone" not in unsaid
    assert said["scores"] == pytest.approx(expected, abs=1e-5)
    assert set(said["alone"]) == {"voice", "words"}
    shown = predict(spoken, "--model", reader, "--text", "Great news", "--output", tmp_path / "one.jsonl").stdout
    assert "voice alone: " in shown and "; words alone: " in shown
    assert lines_of(tmp_path / "one.jsonl")[0]["scores"] == said["scores"]
    for argv, words in (
        ((spoken, silent, "--model", reader, "--text", "news"), "--text is of one recording, and there are 2"),
        ((spoken, "--text", "news"), "hears the voice alone: remove it"),
        ((spoken, "--transcribe", reader), "needs custom code, which is never run here"),
        ((spoken, "--texts", "--text", "news"), "not allowed with"),
    ):
        assert words in predict(*argv, expect=2 if "--texts" in argv else 1).stderr


@pytest.mark.slow
def test_a_transcript_reaches_the_model_and_every_output(reader, whisper, tmp_path):
    spoken = str(write_wav(tmp_path / "a.wav", 2.4))
    words = Transcriber(str(whisper))(spoken)
    assert len(words) >= 1
    edges = np.array([(word["start"], word["end"]) for word in words])
    assert (np.diff(edges.ravel()) >= 0).all() and edges.min() >= 0 and edges.max() <= 2.4
    shown = predict(spoken, "--model", reader, "--transcribe", whisper, "--output", tmp_path / "a.jsonl").stdout
    record = lines_of(tmp_path / "a.jsonl")[0]
    assert record["words"] == words and record["text"] == " ".join(word["word"] for word in words)
    recognize = load_pipeline(str(reader))
    answer = recognize({"audio": spoken, "text": words}, return_timeline=True)
    assert record["scores"] == pytest.approx({e["label"]: e["score"] for e in answer["scores"]}, abs=1e-5)
    assert [part["label"] for part in record["timeline"]] == [part["label"] for part in answer["timeline"]]
    assert words[0]["word"] in shown.split("words\n")[1]


def test_a_transcript_that_repeats_itself_is_told_from_speech():
    said = "Dogs are sitting by the door. Dogs are sitting by the door. Kids are talking by the door."
    assert measure_compression(said) < MOST_COMPRESSED < measure_compression("Dogs are sitting by the" + " door" * 40)
