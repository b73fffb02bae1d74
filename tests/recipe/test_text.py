"""The column `text` on its way to the model: readers, batches, refusals, and a run."""

import json

import pytest
import torch
from conftest import tiny_model, write_wav
from datasets import Dataset, DatasetDict
from making import rows
from running import lines_of, train

from core.errors import InputError
from core.loading import load_pipeline
from recipe.batching import Collator
from recipe.checks import check_targets, check_text
from recipe.corpora import load_corpus
from recipe.joining import join_rows
from recipe.options import Arguments
from recipe.reading import make_reader
from recipe.stages import read_text_encoder_config
from text_ser_align import read_text_config

TEXTS = {"angry": "sad news", "happy": "great dogs", "calm": ""}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A CSV of 27 short recordings of nine speakers, with what they say; the calm ones say nothing."""
    folder = tmp_path_factory.mktemp("spoken")
    lines = ["path,label,speaker,text"]
    for index in range(27):
        write_wav(folder / f"{index}.wav", 0.3, seed=index)
        label = list(TEXTS)[index % 3]
        lines.append(f"{index}.wav,{label},s{index // 3},{TEXTS[label]}")
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"


def test_a_frozen_encoder_reads_each_text_once_and_gives_the_states_of_the_model(tiny_bert):
    split = DatasetDict(
        {name: rows("12", text=lambda s: "sad news" if s == "1" else None) for name in ("train", "test")}
    )
    arguments = Arguments()
    assert make_reader(tiny_model(), arguments, split) is None
    arguments.model.text_encoder = tiny_bert
    read = {}
    for frozen in (True, False):
        text = {"text_encoder_config": read_text_config(tiny_bert), "freeze_text_encoder": frozen}
        model = tiny_model("wav2vec2-layer", **text)
        read[frozen] = [make_reader(model, arguments, split)(text) for text in ("sad news", None)]
        batch = Collator("input_values")([{"input_values": torch.ones(8000), "words": words} for words in read[frozen]])
        assert batch["text_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
        with torch.no_grad():
            read[frozen] = model(**batch).logits
    torch.testing.assert_close(read[True], read[False], atol=1e-6, rtol=0)


def test_csv_files_and_several_corpora_keep_their_words(spoken, tmp_path):
    found = load_corpus("folder", str(spoken.parent), str(spoken))
    assert sorted(set(found["text"][:])) == ["", "great dogs", "sad news"]
    joined = join_rows({"one": found, "two": found.remove_columns("text")})
    assert joined["text"][:] == [*found["text"][:], *[None] * 27]


def test_a_column_of_a_dataset_on_the_hub_is_read(tmp_path):
    paths = [str(write_wav(tmp_path / f"{index}.wav", 0.3, seed=index)) for index in range(6)]
    columns = {"audio": paths, "label": ["a", "b"] * 3, "words": ["sad news"] * 5 + [None]}
    Dataset.from_dict(columns).save_to_disk(tmp_path / "dataset")
    options = {"hub_options": {"text_column": "words"}, "allow_outside": True}
    found = load_corpus("hub", str(tmp_path / "dataset"), **options)
    assert found["text"][:] == ["sad news"] * 5 + [""]


def test_a_corpus_without_words_is_refused_and_missing_ones_are_counted(capsys):
    split = DatasetDict({"train": rows("12"), "test": rows("3")})
    with pytest.raises(InputError, match="emodb has no column text, and --text_encoder needs the words"):
        check_text(split, "emodb")
    with pytest.raises(InputError, match="column text of emodb is empty"):
        check_text(DatasetDict({"train": rows("12", text=lambda s: " ")}), "emodb")
    check_text(DatasetDict({"train": rows("12", text=lambda s: "yes" if s == "1" else "")}), "emodb")
    assert "6 of 12 train utterances of emodb have no words" in capsys.readouterr().err


def test_what_cannot_be_trained_with_words_is_refused(tiny_bert, tmp_path):
    arguments = Arguments()
    arguments.model.text_encoder, arguments.data.mix_probability = tiny_bert, 0.5
    with pytest.raises(InputError, match="mixes voices, but not what they say"):
        check_targets(arguments)
    arguments.model.text_encoder = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"--text_encoder .*nowhere is not a folder"):
        read_text_encoder_config(arguments.model)


@pytest.mark.slow
def test_a_run_learns_from_the_words_and_its_folder_answers_with_them(spoken, tiny_bert, tiny_whisper, tmp_path):
    """The voices are noise, so that all it can learn is in the words."""
    output = tmp_path / "run"
    options = ("--corpus", "folder", "--csv", spoken, "--output_dir", output, "--use_cpu", "true", "--num_folds", "3")
    options += ("--encoder", tiny_whisper, "--freeze_encoder_layers", "2", "--text_encoder", tiny_bert)
    options += ("--num_epochs", "12", "--classifier_learning_rate", "0.02", "--text_dropout", "0", "--batch_size", "4")
    options += ("--num_workers", "0")
    train(*options)
    test = [line for line in lines_of(output / "stage2" / "predictions.jsonl") if line["split"] == "test"]
    assert all(line["prediction"] == line["label"] for line in test)
    recognize = load_pipeline(str(output / "stage2"))
    for line in test:
        said = TEXTS[line["label"]]
        scores = recognize({"audio": str(spoken.parent / line["id"]), "text": said}, top_k=None)
        found = {entry["label"]: entry["score"] for entry in scores}
        assert found == pytest.approx(line["probabilities"], abs=1e-4)
    config = json.loads((output / "stage2" / "config.json").read_text())
    assert tiny_bert not in json.dumps(config)
    again = train(*options).stdout
    assert "already finished" in again
