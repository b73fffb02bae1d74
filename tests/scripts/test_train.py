"""train.py as users run it: two stages, complete folders, interruption, two processes, mistakes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, write_wav
from running import FILES, SHORT, environment, lines_of, run_anew, train
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForAudioClassification

from core.audio import read_audio
from core.loading import load_feature_extractor
from modeling_ser_align import SERAlignForAudioClassification
from recipe.checkpoints import checkpoints_in
from recipe.scoring import score_file

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_each_stage_leaves_a_complete_folder_with_best_and_last_weights(short_run, stage):
    folder = short_run[0] / stage
    assert {path.name for path in folder.iterdir()} >= FILES | {
        "README.md",
        "results.json",
        "last",
        "training_log.jsonl",
    }
    assert {path.name for path in (folder / "last").iterdir()} >= FILES
    assert not (folder / "checkpoints").exists()
    assert json.loads((folder / "preprocessor_config.json").read_text())["return_attention_mask"] is True
    results = json.loads((folder / "results.json").read_text())
    for name, directory in (("best", folder), ("last", folder / "last")):
        config = json.loads((directory / "config.json").read_text())
        assert 250 <= config["bandwidth"] <= 8000
        fitted = {"temperature": config["calibration_temperature"], "unsure_below": config["unsure_below"]}
        assert results["scores"][name] == {**score_file(directory / "predictions.jsonl"), **fitted}
        for line in lines_of(directory / "predictions.jsonl"):
            assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert line["prediction"] == max(line["probabilities"], key=line["probabilities"].get)
    speakers = results["speakers"]
    assert not set(speakers["train"]) & set(speakers["test"]) and not set(speakers["validation"]) & set(
        speakers["test"]
    )
    assert set(results["scores"]["best"]) == {"validation", "test", "temperature", "unsure_below"}
    log = [line for line in lines_of(folder / "training_log.jsonl") if "loss" in line]
    assert len(log) == 4 and all(("eal_loss" in line) == (stage == "stage2") for line in log)


def test_scores_of_shared_speakers_are_called_that_everywhere(demo, tmp_path):
    options = ["--protocol", "shared_speakers", "--stage", "1", "--classifier_hidden_size", "8"]
    run = train(*SHORT, *options, "--data_dir", demo, "--output_dir", tmp_path)
    assert "Scores on held-out utterances of the training speakers: they say nothing about other voices" in run.stdout
    assert "unseen" not in run.stdout
    card = (tmp_path / "stage1" / "README.md").read_text(encoding="utf-8")
    assert "**The sets share speakers**" in card and "No speaker is in two sets" not in card
    assert "fold 1 of shared_speakers, training speakers" in card and "unseen" not in card
    results = json.loads((tmp_path / "stage1" / "results.json").read_text())
    assert set(results["speakers"]["test"]) == set(results["speakers"]["train"])
    assert AutoModel.from_pretrained(tmp_path / "stage1", trust_remote_code=True).classifier[1].out_features == 8


def test_stage_2_starts_from_the_encoder_of_stage_1(short_run, demo, tmp_path):
    """With learning rates of 0 the encoder stays exactly that of stage 1; pooling and classifier are new."""
    output, _ = short_run
    still = ["--learning_rate", "0", "--pooling_learning_rate", "0", "--classifier_learning_rate", "0"]
    train(*SHORT, *still, "--data_dir", demo, "--output_dir", tmp_path, "--stage", 2, "--init_from", output / "stage1")
    first, second = (load_file(d / "model.safetensors") for d in (output / "stage1", tmp_path / "stage2"))
    encoder = [name for name in first if name.startswith("encoder.")]
    assert len(encoder) > 20 and all(torch.equal(first[name], second[name]) for name in encoder)
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])
    assert "pooling.cls_token" in second and "pooling.cls_token" not in first


def test_a_finished_run_is_not_trained_again_and_never_mixed_with_another(short_run, demo):
    output, _ = short_run
    before = (output / "stage2" / "model.safetensors").stat().st_mtime_ns
    again = train(*SHORT, "--data_dir", demo, "--output_dir", output)
    assert "Stage 2 is already finished" in again.stdout
    assert (output / "stage2" / "model.safetensors").stat().st_mtime_ns == before
    other = train(*SHORT, "--data_dir", demo, "--output_dir", output, "--eal_margin", 0.4, expect=1)
    assert "was trained with eal_margin=0.8, not 0.4" in other.stderr and "Traceback" not in other.stderr


def test_a_killed_run_goes_on_to_exactly_the_same_weights(demo, tmp_path):
    argv = [*SHORT, "--data_dir", demo, "--stage", 1, "--max_steps", -1, "--num_epochs", 3]
    argv += ["--ema_decay", 0.9, "--mix_probability", 0.3, "--mix", "energy", "--stage1_pooling", "flam"]
    argv += ["--center_weight", 0.01, "--contrastive_weight", 0.1, "--focal_weight", 0.5]
    argv += ["--degrade_probability", 0.5, "--degradations", "cut", "noise", "babble", "telephone"]
    train(*argv, "--output_dir", tmp_path / "whole")

    killed = subprocess.Popen(
        [sys.executable, "train.py", *map(str, argv), "--output_dir", str(tmp_path / "killed")],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoints = tmp_path / "killed" / "stage1" / "checkpoints"
    deadline = time.time() + 300
    while len(list(checkpoints.glob("checkpoint-*/files.json"))) < 2 and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # into the next epoch
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "stage1" / "results.json").exists()
    (checkpoints / "checkpoint-99999").mkdir()  # as if a kill had come while it was written
    complete, newest = checkpoints_in(checkpoints)[:2]
    os.truncate(newest / "optimizer.pt", 1000)

    resumed = train(*argv, "--output_dir", tmp_path / "killed")
    assert f"deleted {newest}: it, or the best checkpoint before it, is incomplete" in resumed.stdout
    assert f"resuming from {complete}\n" in resumed.stdout
    assert json.loads((tmp_path / "killed" / "stage1" / "results.json").read_text())["resumed"] is True
    assert json.loads((tmp_path / "whole" / "stage1" / "results.json").read_text())["resumed"] is False
    for name in ("model.safetensors", "last/model.safetensors"):
        whole, again = (load_file(tmp_path / run / "stage1" / name) for run in ("whole", "killed"))
        assert all(torch.equal(whole[key], again[key]) for key in whole), name
        assert "objective.centers" in whole and "pooling.attention.query.weight" in whole


def test_two_processes_train_log_and_score_as_one(demo, tmp_path):
    """The batch size counts all processes, so the updates are the same; no score is lost or counted twice."""
    # Each process would draw its own dropout, SpecAugment and speeds.
    still = {"conformer_conv_dropout": 0.0, "hidden_dropout": 0.0, "mask_time_prob": 0.0}
    argv = [*SHORT, "--data_dir", demo, "--encoder_config", json.dumps(still), "--speed_factors", "1.0"]
    argv += ["--gradient_accumulation_steps", 2, "--center_weight", 0.01, "--kl_weight", 0.3, "--focal_weight", 0.5]
    train(*argv, "--output_dir", tmp_path / "one")
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29613"]
    run_anew("train.py", *argv, "--output_dir", tmp_path / "two", launcher=torchrun)
    for stage in ("stage1", "stage2"):
        one, two = tmp_path / "one" / stage, tmp_path / "two" / stage
        for expected, found in zip(lines_of(one / "training_log.jsonl"), lines_of(two / "training_log.jsonl")):
            assert expected.keys() == found.keys()
            same = {name for name in expected if not name.endswith(("_runtime", "_per_second", "_flos"))}
            expected, found = ({name: line[name] for name in same} for line in (expected, found))
            assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), stage
            if "loss" in expected:
                parts = {f"learning_rate/{part}" for part in ("encoder", "pooling", "classifier", "centers")}
                assert same >= {"grad_norm", "ce_loss", "kl_loss", "focal_loss", "center_loss", *parts}
        expected, found = lines_of(one / "predictions.jsonl"), lines_of(two / "predictions.jsonl")
        assert [line["id"] for line in expected] == [line["id"] for line in found]
        difference = [
            abs(a["probabilities"][label] - b["probabilities"][label])
            for a, b in zip(expected, found)
            for label in a["probabilities"]
        ]
        assert max(difference) < 1e-5


def test_a_run_on_a_folder_of_my_own(tmp_path):
    """A raw-waveform encoder from scratch on a folder for each label, TensorBoard on, longer clips cut."""
    rng = np.random.default_rng(0)
    for label in ("angry", "calm"):
        for index in range(12):
            write_wav(tmp_path / "mine" / label / f"{index}.wav", rng.uniform(0.2, 0.6), 22050, 1 + index % 2, index)
    shape = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "layerdrop": 0.0}
    shape |= {"num_conv_pos_embedding_groups": 2}
    argv = ["--corpus", "folder", "--data_dir", tmp_path / "mine", "--encoder", "none", "--num_epochs", 1]
    argv += ["--encoder_config", json.dumps(shape), "--output_dir", tmp_path / "out", "--max_duration", 0.4]
    argv += ["--tensorboard", "--use_cpu", "--batch_size", 4, "--bf16", "--num_workers", 1]
    run = train(*argv)
    assert "names no speakers" in run.stderr and "unseen" not in run.stdout
    assert list((tmp_path / "out" / "stage1" / "tensorboard").rglob("events.out.tfevents*"))
    labels = json.loads((tmp_path / "out" / "stage2" / "config.json").read_text())["id2label"]
    assert labels == {"0": "angry", "1": "calm"}
    card = (tmp_path / "out" / "stage2" / "README.md").read_text()
    assert "The corpus names no speakers" in card and str(tmp_path / "mine") not in card
    assert_predictions_are_those_of_the_folder(tmp_path / "out" / "stage2", tmp_path / "mine")

    (tmp_path / "mine" / "calm" / "0.wav").rename(tmp_path / "mine" / "angry" / "other.wav")
    assert "was trained with different utterances or a different split" in train(*argv, expect=1).stderr
    write_wav(tmp_path / "mine" / "angry" / "blip.wav", 0.01)
    short = train(*argv, "--overwrite", expect=1)
    assert "blip.wav lasts 0.0100 s" in short.stderr and (tmp_path / "out" / "stage2" / "results.json").is_file()


def assert_predictions_are_those_of_the_folder(stage_dir, data_dir, suffix=""):
    """predictions.jsonl belongs to the saved float32 weights, also after training in bfloat16."""
    model = SERAlignForAudioClassification.from_pretrained(stage_dir).eval()
    feature_extractor = load_feature_extractor(str(stage_dir))
    for line in lines_of(stage_dir / "predictions.jsonl"):
        waveform = read_audio(data_dir / f"{line['id']}{suffix}")
        with torch.no_grad():
            output = model(**feature_extractor(waveform, sampling_rate=16000, return_tensors="pt"))
        found = output.logits.softmax(-1)[0].tolist()
        assert found == pytest.approx(list(line["probabilities"].values()), abs=1e-5)


def test_weights_in_float16_take_half_and_are_loaded_in_float32(short_run, demo, tmp_path):
    argv = [
        *SHORT,
        "--data_dir",
        demo,
        "--output_dir",
        tmp_path,
        "--stage",
        "2",
        "--init_from",
        short_run[0] / "stage1",
    ]
    train(*argv, "--float16_weights")
    half, whole = (folder / "stage2" / "model.safetensors" for folder in (tmp_path, short_run[0]))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    for load in (AutoModel, AutoModelForAudioClassification):
        model = load.from_pretrained(half.parent, trust_remote_code=True)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32} == {model.dtype}
    assert_predictions_are_those_of_the_folder(half.parent, demo, ".wav")
    rounded = load_file(half)
    for name, weight in load_file(whole).items():  # the same training
        assert torch.equal(rounded[name], weight.half() if weight.ndim > 1 else weight), name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--averaging", "0.9"], "--averaging is not an option any more; it is now called --ema_decay"),
        (["--lerning_rate", "1"], "--lerning_rate is not an option; did you mean --learning_rate?"),
        (["--config", "run_configs/nope.yaml"], "no such file; run_configs/ has quickstart.yaml"),
        ([*SHORT, "--corpus", "ravdess", "--data_dir", "nowhere"], "nowhere contains no RAVDESS speech"),
        ([*SHORT, "--eal_margin", "3"], "--eal_margin: '3' is not valid; give a number from -1 to 2"),
        (["--encoder", "none", "--encoder_config", '{"model_type": "bert"}'], "model_type='bert', which is not one of"),
        (["--encoder", "no/such-encoder"], "--encoder no/such-encoder is not a folder and was not downloaded before"),
        (["--stage", "2"], "which contains no model: train stage 1 or set --init_from"),
        (
            [*SHORT, "--encoder_config", '{"layer_drop": 0}'],
            "'layer_drop' is not a setting of wav2vec2-bert; did you mean",
        ),
        ([*SHORT, "--encoder_config", '{"hidden_act": "gelo"}'], "the model of stage 1 cannot be built"),
        ([*SHORT, "--attn_implementation", "flash_attention_2"], "does not support Flash Attention 2"),
        (["--push_to_hub", "my model"], "--push_to_hub 'my model'"),
        (["--stage", "2", "--init_from", "OUT/stage2"], "is the folder that stage 2 writes"),
        ([*SHORT, "--fold", "9"], "--fold 9 is not one of the 5 folds of demo"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(demo, tmp_path, argv, message):
    argv = [str(word).replace("OUT", str(tmp_path)) for word in argv]
    corpus = [] if "--data_dir" in argv else ["--data_dir", demo]
    run = train(*argv, *corpus, "--output_dir", tmp_path, expect=1)
    error = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0] and "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())  # so that the corrected command finds nothing in its way


def test_stage_2_refuses_a_stage_1_that_has_heard_its_test_speakers(short_run, demo, tmp_path):
    argv = ["--data_dir", demo, "--output_dir", tmp_path, "--stage", 2]
    for folder in ("stage1", "stage1/last"):
        run = train(*SHORT, *argv, "--init_from", short_run[0] / folder, "--fold", 2, expect=1)
        assert "was trained on speaker" in run.stderr and "start from a stage 1 with the same fold" in run.stderr


def test_a_folder_that_is_not_of_a_run_is_left_alone(demo, tmp_path):
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "thesis.txt").write_text("years of work")
    run = train(*SHORT, "--data_dir", demo, "--output_dir", tmp_path, "--overwrite", expect=1)
    assert "no run wrote it" in run.stderr and (tmp_path / "stage1" / "thesis.txt").exists()


def test_a_run_that_was_killed_before_it_said_what_it_is_is_started_again(tmp_path):
    from recipe.stage_folder import read_finished

    (tmp_path / "stage1" / "checkpoints").mkdir(parents=True)
    (tmp_path / "stage1" / "arguments.json.123.unfinished").write_text("{")
    assert read_finished(tmp_path / "stage1", {}, overwrite=False) is None


def test_watching_the_test_part_changes_nothing_and_is_what_the_last_weights_score(short_run, demo, tmp_path):
    train(*SHORT, "--data_dir", demo, "--output_dir", tmp_path, "--stage", 1, "--watch_test")
    ours, theirs = (folder / "stage1" / "model.safetensors" for folder in (tmp_path, short_run[0]))
    assert ours.read_bytes() == theirs.read_bytes()
    results = json.loads((tmp_path / "stage1" / "results.json").read_text(encoding="utf-8"))
    assert results["history"][-1]["test_ua"] == pytest.approx(results["scores"]["last"]["test"]["ua"])
    train(*SHORT, "--data_dir", demo, "--output_dir", tmp_path / "b", "--stage", 1, "--watch_test", "--num_workers", 1)
    results = json.loads((tmp_path / "b" / "stage1" / "results.json").read_text(encoding="utf-8"))
    assert results["history"][-1]["test_ua"] == pytest.approx(results["scores"]["last"]["test"]["ua"])
    assert "test_ua" not in json.loads((short_run[0] / "stage1" / "results.json").read_text())["history"][-1]
