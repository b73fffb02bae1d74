"""Errors before the corpus is read: each of these runs has a corpus that cannot be read."""

import json
import shutil

import pytest
from conftest import TINY_ENCODERS, tiny_model
from datasets import Dataset, DatasetDict

from core.errors import InputError
from recipe.arguments import parse_arguments
from recipe.checks import check_durations, check_run, name_voices
from recipe.run import run

TINY = ["--use_cpu", "--encoder", "none", "--encoder_config", json.dumps(TINY_ENCODERS["wav2vec2-group"])]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--pooling_num_heads", "5"], "stage 2 cannot be built: pooling_num_heads=5 does not divide"),
        (
            ["--frame_classifier", "separate", "--fual_weight", "0"],
            "frame_classifier='separate' is trained only by FUAL",
        ),
        (["--cls_in_embedding", "concat"], "set frame_classifier='separate'"),
        (["--encoder_config", '{"hidden_act": "gelo"}'], "the model of stage 1 cannot be built: "),
        (
            ["--encoder_config", '{"hidden_sise": 64}'],
            "'hidden_sise' is not a setting of wav2vec2; did you mean hidden_size?",
        ),
        (["--encoder_config", '{"num_attention_heads": 5}'], "the model of stage 1 cannot be built: "),
        (["--attn_implementation", "flash_attention_2"], "the model of stage 1 cannot be built: "),
        (
            ["--encoder", "no/such-encoder", "--encoder_config", "{}"],
            "--encoder no/such-encoder is not a folder and was not",
        ),
        (["--training_arguments", '{"optm": "sgd"}'], "'optm' is not one of transformers.TrainingArguments"),
        (["--push_to_hub", "my model"], "--push_to_hub 'my model'"),
        (["--stage", "2"], "which contains no model: train stage 1 or set --init_from"),
    ],
)
def test_a_run_that_cannot_be_trained_is_refused_though_its_corpus_cannot_be_read(tmp_path, argv, message):
    corpus = ["--corpus", "ravdess", "--data_dir", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(InputError) as error:
        run(parse_arguments([*TINY, *corpus, *argv], ""))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_stage_section_is_checked_as_well(tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"encoder: none\nencoder_config: {TINY[-1]}\nstage2:\n  encoder_config: {{hidden_size: 64}}"
    )
    with pytest.raises(InputError, match="stage 2 keeps the encoder of stage 1, where hidden_size is 32, not 64"):
        check_run(parse_arguments(["--config", str(tmp_path / "run.yaml"), "--use_cpu"], ""))


def test_a_stage_1_that_another_run_trains_first_need_not_be_there(tmp_path):
    second = parse_arguments([*TINY, "--stage", "2", "--init_from", str(tmp_path / "later")], "")
    check_run(second, first=parse_arguments([*TINY, "--stage", "1"], "")[1])
    wrong = parse_arguments([*TINY, "--stage", "2", "--pooling_num_heads", "5"], "")
    with pytest.raises(InputError, match="does not divide the encoder's hidden size 32"):
        check_run(wrong, first=parse_arguments([*TINY, "--stage", "1"], "")[1])


def test_a_stage_1_that_is_there_is_read(tmp_path):
    tiny_model("wav2vec2-group", pooling="attentive").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"contains no preprocessor_config\.json: copy or download it again"):
        check_run(parse_arguments([*TINY, "--stage", "2", "--init_from", str(tmp_path)], ""))


def test_voices_of_stage_1_are_known_across_corpora():
    """A stage 1 on msp_podcast has heard its speaker 7, whom stage 2 on two corpora calls msp_podcast/7."""
    now = name_voices(["msp_podcast/7", "iemocap/8"], "demo", True)
    assert name_voices(["7", "8"], "msp_podcast", False) & now == {"msp_podcast/7"}
    earlier_release = name_voices(["msp_podcast:7"], "msp_podcast", False)
    assert earlier_release & now == {"msp_podcast/7"}


def test_a_fold_that_the_corpus_does_not_have_is_refused_before_any_audio_is_read(demo, tmp_path):
    copy = shutil.copytree(demo, tmp_path / "demo")
    for path in copy.rglob("*.wav"):
        path.write_bytes(b"no audio")
    for argv, message in (
        (["--fold", "9"], "--fold 9 is not one of the 5 folds of demo"),
        (["--num_validation_speakers", "40"], "--num_validation_speakers 40: there are "),
    ):
        with pytest.raises(InputError, match=message):
            run(parse_arguments([*TINY, "--data_dir", str(copy), "--output_dir", str(tmp_path / "out"), *argv], ""))


def test_an_excerpt_that_is_too_short_is_named_with_its_times():
    columns = {"audio": [{"path": "talk.wav"}], "start": [1.5], "end": [1.51], "duration": [0.01]}
    with pytest.raises(InputError, match=r"talk\.wav from 1\.5 s to 1\.51 s lasts 0\.0100 s; one frame"):
        check_durations(DatasetDict(train=Dataset.from_dict(columns)), 400)


def test_utterances_longer_than_the_encoder_takes_are_counted_in_a_warning(capsys):
    columns = {"audio": [{"path": "a.wav"}] * 3, "duration": [2.0, 30.0, 34.1]}
    check_durations(DatasetDict(train=Dataset.from_dict(columns)), 160, 30.0)
    assert "the encoder takes at most 30 s: only the middle of 1 longer utterances is used" in capsys.readouterr().err
