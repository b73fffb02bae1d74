"""Robustness tests of classical models and of folds: noise files, shared recordings, paired differences."""

import numpy as np
import pytest
import soundfile
from conftest import write_wav
from making import labelled_rows
from running import SHORT, lines_of, run_script
from scipy.stats import permutation_test
from sklearn.metrics import balanced_accuracy_score

from core.errors import InputError
from core.hashing import hash_content
from experiments.conditions import Condition, RobustnessTest, read_robustness_test
from experiments.robustness import group_by_rows, name_models, read_noises
from experiments.robustness_report import OVERALL, build_comparison_table, compare_systems
from recipe.degradations import cut_noise, measure_speech_level
from tests.experiments.test_robustness import SPEECH, hiss, make_lines, write_test

SHIPPED = read_robustness_test("run_configs/robustness.yaml")


def test_noise_is_cut_from_anywhere_and_repeated():
    recording = np.arange(10.0)
    starts = set()
    for seed in range(30):
        noise = cut_noise(recording, 25, np.random.default_rng(seed))
        assert len(noise) == 25 and set(np.diff(noise)) == {1.0, -9.0}
        starts.add(noise[0])
    assert len(starts) > 5


def test_own_noise_has_the_level_of_its_condition_and_is_that_of_the_file():
    tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 16000).astype(np.float32)
    added = Condition("", {"noise": 5}).apply(SPEECH, 1, hiss, [tone]) - SPEECH
    ratio = measure_speech_level(SPEECH) ** 2 / np.mean(added.astype(np.float64) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(5, abs=0.05)
    spectrum = np.abs(np.fft.rfft(added[:16000]))
    assert spectrum.argmax() == 440


def test_noise_files_and_folders_are_read_and_get_conditions(tmp_path):
    first, second = (
        write_wav(tmp_path / "noises" / "deep" / f"{name}.wav", 0.3, seed=i) for i, name in enumerate("ab")
    )
    (tmp_path / "noises" / "list.txt").write_text("no audio")
    noises, test = read_noises([str(tmp_path / "noises")], SHIPPED)
    assert list(noises) == [hash_content(str(first)), hash_content(str(second))]
    np.testing.assert_allclose(noises[hash_content(str(first))], soundfile.read(first)[0], atol=1e-6)
    assert [each.name for each in test.conditions[-4:]] == [f"own noise, {snr} dB" for snr in (20, 10, 5, 0)]
    own = RobustnessTest(SHIPPED.path, "", 0, tmp_path, (Condition("street", {"noise": 3}),))
    assert read_noises([str(first)], own)[1] == own
    assert read_noises([], SHIPPED) == ({}, SHIPPED)


def test_noise_that_is_none_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    soundfile.write(tmp_path / "silent.wav", np.zeros(1600), 16000)
    for paths, message in (
        ([str(tmp_path / "empty")], "empty contains no audio files: give audio files, or folders that contain some"),
        ([str(tmp_path / "nowhere")], "nowhere contains no audio files"),
        ([str(tmp_path / "silent.wav")], r"silent\.wav is silent: remove it"),
    ):
        with pytest.raises(InputError, match=message) as refused:
            read_noises(paths, SHIPPED)
        assert "\n" not in str(refused.value)
    own = RobustnessTest(SHIPPED.path, "", 0, tmp_path, (Condition("street", {"noise": 3}),))
    with pytest.raises(InputError, match="adds noise from files: give audio files or folders of them with --noise"):
        read_noises([], own)


def test_folds_of_a_system_are_pooled_by_name(tmp_path):
    folders = []
    for name in ("fold1/svm", "fold2/svm", "fold1/cls/stage2", "fold2/cls/stage2"):
        folders.append(tmp_path / name)
        folders[-1].mkdir(parents=True)
        (folders[-1] / "results.json").write_text("{}")
    assert list(name_models(list(map(str, folders)), pool_folds=True).values()) == ["svm", "svm", "cls", "cls"]


def test_models_share_recordings_only_with_the_same_files_and_labels():
    def make(names, folder):
        rows = labelled_rows(names * 2, names=names, folder=folder)
        return {"validation": rows, "test": rows}

    splits = {"a": make(["low", "high"], "x"), "b": make(["low", "high"], "x")}
    splits |= {"c": make(["low", "high"], "y"), "d": make(["calm", "sad"], "x")}
    assert [folders for _, folders in group_by_rows(splits)] == [["a", "b"], ["c"], ["d"]]


def test_differences_are_paired_over_all_degraded_conditions():
    lines = [*make_lines("one", 0), *make_lines("two", 1), *make_lines("other", 2)]
    lines += [{**line, "condition": "loud"} for line in make_lines("one", 3) if line["condition"] == "noisy"]
    lines += [{**line, "condition": "loud"} for line in make_lines("two", 4) if line["condition"] == "noisy"]
    lines = [line if line["model"] != "other" else {**line, "id": f"x{line['id']}"} for line in lines]
    rows = compare_systems(lines, ["clean", "noisy", "loud"])
    assert [(row["system"], row["other"], row["condition"]) for row in rows] == [
        ("one", "two", condition) for condition in (OVERALL, "clean", "noisy", "loud")
    ]  # the third has other utterances

    def score(model, speakers=range(5)):
        chosen = [
            line
            for speaker in speakers
            for line in lines
            if line["model"] == model and line["condition"] != "clean" and line["speaker"] == f"s{speaker}"
        ]
        return balanced_accuracy_score(*zip(*[(line["label"], line["prediction"]) for line in chosen]))

    assert rows[0]["difference_ua"] == pytest.approx(score("one") - score("two"))
    by_pair = {(model, speaker): (model, speaker) for model in ("one", "two") for speaker in range(5)}
    keys = list(by_pair)

    def statistic(ours, theirs):
        sides = []
        for side in (ours, theirs):
            chosen = [
                line
                for index in side
                for line in lines
                if line["condition"] != "clean"
                and (line["model"], line["speaker"]) == (keys[index][0], f"s{keys[index][1]}")
            ]
            sides.append(balanced_accuracy_score(*zip(*[(line["label"], line["prediction"]) for line in chosen])))
        return sides[0] - sides[1]

    exact = permutation_test(
        (np.arange(5), np.arange(5, 10)), statistic, permutation_type="samples", vectorized=False, n_resamples=np.inf
    )
    assert rows[0]["p"] == rows[0]["p_holm"] == pytest.approx(exact.pvalue)
    assert "| one | two |" in "\n".join(build_comparison_table({"comparisons": rows}))


@pytest.mark.slow
def test_classical_models_are_tested_and_augmented_ones_are_fitted(demo, tmp_path):
    data = [*SHORT[:2], *SHORT[-2:], "--use_cpu", "--data_dir", demo, "--c_values", "0.1"]
    copies = ["--augment", "--degrade_probability", "0.5", "--degradations", "noise", "telephone"]
    for name, argv in (("plain", []), ("copies", copies)):
        run_script("baseline.py", *data, *argv, "--output_dir", tmp_path / name)
    refused = run_script("baseline.py", *data, *copies[1:], "--output_dir", tmp_path / "x", expect=1).stderr
    assert "--degrade_probability requires augment: add it, or remove degrade_probability" in refused
    models = [tmp_path / "plain", tmp_path / "copies"]
    noise = write_wav(tmp_path / "noise" / "street.wav", 1)
    config = write_test(
        tmp_path / "test.yaml", {"as recorded": {}, "call": {"telephone": "ULAW"}, "street": {"noise": 0}}
    )
    argv = ["--config", config, "--model", *models, "--data_dir", demo, "--use_cpu", "--noise", noise.parent]
    run_script("experiment.py", *argv, "--output_dir", tmp_path / "out")
    tested = lines_of(tmp_path / "out" / "predictions.jsonl")
    for model in models:  # as recorded, the scores are those of baseline.py
        expected = {line["id"]: line for line in lines_of(model / "predictions.jsonl") if line["split"] == "test"}
        own = [line for line in tested if line["model"] == model.name and line["condition"] == "as recorded"]
        assert len(own) == len(expected)
        for line in own:
            assert line["probabilities"] == pytest.approx(expected[line["id"]]["probabilities"], abs=1e-5)
    assert "## Differences between systems" in (tmp_path / "out" / "report.md").read_text()
    stored = len(list((tmp_path / "out" / "features").iterdir()))
    assert stored == 3 * len(own)  # both models hear the same recordings, whose features are computed once
