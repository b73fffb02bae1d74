"""Word times on their way to the model: CSV, datasets, transcripts, trimmed and faster utterances, and a run."""

import json

import numpy as np
import pytest
import soundfile
import torch
from conftest import tiny_model, write_wav
from datasets import Dataset, DatasetDict
from making import rows
from running import lines_of, train
from transformers import AutoTokenizer

from core.audio import read_audio
from core.errors import InputError
from core.loading import load_pipeline
from feature_extraction_ser_align import SERAlignWaveformExtractor
from prosody_ser_align import WORD_VALUES, describe_words, measure_frames
from recipe.augmentation import Augmentation
from recipe.checks import check_targets, check_text
from recipe.corpora import load_corpus
from recipe.corpora.words import add_transcripts, read_word_times
from recipe.joining import join_rows
from recipe.options import Arguments
from recipe.preparing import AudioCache, UtterancePreparer
from recipe.reading import Reader
from speech_ser_align import trim
from words_ser_align import shift_words

RATE = 16000
LEVELS = ["embedding", "word", "utterance"]
WORDS = [{"word": "sad", "start": 0.5, "end": 0.8}, {"word": "news", "start": 0.9, "end": 1.3}]


def write_voice(path, pitches=(120.0, 240.0), lead=0.5):
    """Two vowels of known pitch, after silence: those of WORDS."""
    times = np.arange(int(1.6 * RATE)) / RATE
    waveform = np.zeros(len(times))
    for word, pitch in zip(WORDS, pitches):
        inside = (times >= word["start"] - 0.5 + lead) & (times < word["end"] - 0.5 + lead)
        waveform += inside * sum(np.sin(2 * np.pi * k * pitch * times) / k for k in range(1, 9))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * waveform, RATE)
    return path


def test_words_of_csv_files_datasets_and_several_corpora(tmp_path):
    for index in range(4):
        write_wav(tmp_path / f"{index}.wav", 0.5, seed=index)
    cells = ["", json.dumps(WORDS).replace('"', '""'), "", json.dumps(WORDS[:1]).replace('"', '""')]
    lines = [f'{index}.wav,{"ab"[index % 2]},s{index},"{cell}",own text' for index, cell in enumerate(cells)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,speaker,words,text", *lines]))
    found = load_corpus("folder", str(tmp_path), str(tmp_path / "list.csv"))
    assert found["words"][:] == [[], WORDS, [], WORDS[:1]]
    assert found["text"][:] == ["own text", "sad news", "own text", "sad"]  # words with times are the text
    columns = {"audio": [str(tmp_path / f"{i}.wav") for i in range(4)], "label": list("abab")}
    Dataset.from_dict({**columns, "times": [WORDS, None, WORDS, []]}).save_to_disk(tmp_path / "dataset")
    options = {"hub_options": {"words_column": "times"}, "allow_outside": True}
    hub = load_corpus("hub", str(tmp_path / "dataset"), **options)
    assert hub["words"][:] == [WORDS, [], WORDS, []] and hub["text"][:] == ["sad news", "", "sad news", ""]
    joined = join_rows({"one": found, "two": found.remove_columns(["words", "text"])})
    assert joined["words"][:] == [*found["words"][:], *[None] * 4]


def test_words_that_cannot_be_read_are_named():
    assert read_word_times(json.dumps(WORDS), "here") == WORDS and read_word_times(" ", "here") == []
    for value, message in (
        ("[{", r"here: words='\[{' is not JSON"),
        ([{"word": "a", "start": 1}], "words are no list of word, start and end"),
        ({"word": ["a"], "start": [0], "end": [1]}, "words are no list of word, start and end"),
        ([{"word": "a", "start": 1, "end": 0.5}], "'a' is from 1 to 0.5 s"),
        ([{"word": "a", "start": 0, "end": float("nan")}], "'a' is from 0 to nan s"),
    ):
        with pytest.raises(InputError, match=message):
            read_word_times(value, "here")


def test_transcripts_replace_the_words_of_the_recordings_they_have(tmp_path, capsys):
    data = rows("12")
    paths = [audio["path"] for audio in data["audio"]]
    records = [{"file": str(tmp_path / "elsewhere.wav"), "words": []}]
    records += [{"file": path, "words": WORDS} for path in paths[:3]] + [{"file": paths[3], "error": "damaged"}]
    file = tmp_path / "words.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = add_transcripts(data.add_column("text", ["own"] * 12), str(file), "demo")
    assert found["words"][:] == [WORDS] * 3 + [[]] * 9 and found["text"][:] == ["sad news"] * 3 + [""] * 9
    assert "8 of 12 utterances of demo are not in" in capsys.readouterr().err
    assert add_transcripts(data, None, "demo") is data
    none = json.dumps(records[0]) + "\n"
    for content, message in (("{}\n", "line 1 is no record"), (none, "has no recording of demo")):
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            add_transcripts(data, str(file), "demo")
    with pytest.raises(InputError, match="cannot be read"):
        add_transcripts(data, str(tmp_path / "none.jsonl"), "demo")
    with pytest.raises(InputError, match="are excerpts"):
        add_transcripts(data.add_column("start", [0.0] * 12), str(file), "demo")


@pytest.mark.parametrize(("speed", "max_duration"), [(1.0, None), (1.25, None), (1.0, 0.6)])
def test_words_keep_their_place_in_trimmed_faster_and_cropped_utterances(speed, max_duration, tiny_bert, tmp_path):
    """The pitch of each word is that of its vowel, wherever the vowel has moved."""
    path = write_voice(tmp_path / "voice.wav")
    reader = Reader(AutoTokenizer.from_pretrained(tiny_bert), levels=LEVELS)
    extractor = SERAlignWaveformExtractor(return_attention_mask=True, trim_db=30.0)
    augmentation = Augmentation(speed_factors=(speed,))
    for cache in (None, AudioCache()):
        preparer = UtterancePreparer(extractor, 400, max_duration, augmentation, cache=cache, reader=reader)
        columns = {"audio": [{"path": str(path)}] * 2, "label": [0, 1], "id": ["a", "b"]}
        prepared = preparer({**columns, "text": ["sad news", "sad news"], "words": [WORDS, []]})
        table, without = prepared["word_prosody"]
        assert without.shape == (0, len(WORD_VALUES) + 1) and len(prepared["utterance_prosody"]) == 2
        assert table[[0, -1]].sum() == 0  # [CLS] and [SEP]
        for row, pitch, word in zip(table[[1, 2]], (120.0, 240.0), WORDS):
            assert row[0].item() == pytest.approx(np.log2(speed * pitch / 150), abs=0.03)
            assert row[1].item() > 0.85
            duration = np.log2((word["end"] - word["start"]) / speed / 0.25)
            if max_duration is None:
                assert row[3].item() == pytest.approx(duration, abs=1e-4)
            assert row[3].item() < duration + 1e-4  # the crop cuts both words
        assert table[2, 4].item() == pytest.approx(0.1 / speed, abs=1e-5)
    if speed == 1.0 and max_duration is None:  # the same as inference measures
        start, speech = trim(read_audio(path), 30.0)
        expected = describe_words(measure_frames(speech), shift_words(WORDS, -start / RATE))
        np.testing.assert_allclose(table[[1, 2]].numpy(), expected, atol=1e-6)


def test_a_model_without_these_levels_gets_no_prosody(tiny_bert, tmp_path):
    path = write_voice(tmp_path / "voice.wav")
    preparer = UtterancePreparer(
        SERAlignWaveformExtractor(), 400, reader=Reader(AutoTokenizer.from_pretrained(tiny_bert))
    )
    columns = {"audio": [{"path": str(path)}], "label": [0], "id": ["a"], "text": ["sad news"], "words": [WORDS]}
    assert set(preparer(columns)) == {"input_values", "labels", "id", "words"}


def test_levels_without_what_they_need_are_refused(capsys):
    split = DatasetDict({"train": rows("12", text=lambda s: "sad news"), "test": rows("3", text=lambda s: "sad")})
    check_text(split, "demo", ["embedding", "utterance"])
    with pytest.raises(InputError, match="no training utterance of demo has word times"):
        check_text(split, "demo", LEVELS)
    timed = DatasetDict(
        {name: part.add_column("words", [WORDS] + [[]] * (len(part) - 1)) for name, part in split.items()}
    )
    check_text(timed, "demo", LEVELS)
    assert "11 of 12 train utterances of demo have no word times" in capsys.readouterr().err
    arguments = Arguments()
    arguments.model.text_levels = ["word"]
    with pytest.raises(InputError, match="--text_levels word needs --text_encoder"):
        check_targets(arguments)
    arguments.model.text_encoder, arguments.data.degrade_probability = "some/encoder", 0.5
    with pytest.raises(InputError, match="--degrade_probability moves speech"):
        check_targets(arguments)


@pytest.mark.slow
def test_a_run_learns_from_the_pitch_of_words_and_its_folder_answers_with_it(tiny_bert, tiny_whisper, tmp_path):
    """Text and times are the same for all; which word is higher is the label, and the words alone can tell."""
    pitches = {"fall": (240.0, 120.0), "rise": (120.0, 240.0)}
    lines = ["path,label,speaker,words"]
    cell = json.dumps(WORDS).replace('"', '""')
    for index in range(24):
        label = list(pitches)[index % 2]
        write_voice(tmp_path / "data" / f"{index}.wav", [hertz * (1 + index / 100) for hertz in pitches[label]])
        lines.append(f'{index}.wav,{label},s{index // 3},"{cell}"')
    (tmp_path / "data" / "list.csv").write_text("\n".join(lines))
    output = tmp_path / "run"
    data = tmp_path / "data"
    options = ("--corpus", "folder", "--csv", data / "list.csv", "--output_dir", output, "--use_cpu", "true")
    options += ("--encoder", tiny_whisper, "--freeze_encoder_layers", "2", "--text_encoder", tiny_bert)
    options += ("--text_levels", "word", "embedding", "--text_fusion", "late", "--text_dropout", "0", "--stage", "1")
    options += ("--num_epochs", "15", "--classifier_learning_rate", "0.05", "--batch_size", "4", "--num_workers", "0")
    train(*options)
    lines = [line for line in lines_of(output / "stage1" / "predictions.jsonl") if line["split"] == "test"]
    config = json.loads((output / "stage1" / "config.json").read_text())
    assert config["text_levels"] == ["embedding", "word"]
    recognize = load_pipeline(str(output / "stage1"))
    right = 0
    for line in lines:
        path = str(tmp_path / "data" / line["id"])
        answer = recognize({"audio": path, "text": WORDS}, return_timeline=True)
        found = {entry["label"]: entry["score"] for entry in answer["scores"]}
        assert found == pytest.approx(line["probabilities"], abs=1e-4)
        words = {entry["label"]: entry["score"] for entry in answer["alone"]["words"]}
        without = {e["label"]: e["score"] for e in recognize({"audio": path, "text": "sad news"}, top_k=None)}
        assert without != pytest.approx(found, abs=1e-3)
        right += max(words, key=words.get) == line["label"]
    assert len(lines) > 3 and right >= 0.8 * len(lines)
    assert "words" in json.loads((output / "stage1" / "arguments.json").read_text())
    assert "already finished" in train(*options).stdout


def test_tiny_models_of_earlier_releases_have_one_level(tiny_bert):
    from text_ser_align import read_text_config

    model = tiny_model("wav2vec2-layer", text_encoder_config=read_text_config(tiny_bert))
    saved = model.config.to_dict()
    del saved["text_levels"]
    again = type(model.config).from_dict(saved)
    assert again.text_levels == ["embedding"]
    assert type(model)(again).state_dict().keys() == model.state_dict().keys()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
