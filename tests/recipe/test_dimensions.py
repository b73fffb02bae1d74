"""Dimensions as targets: columns of a CSV and of labels, what is dropped and refused, batches, and what selects."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import write_wav
from making import labelled_rows, make_trainer
from transformers import EvalPrediction

from core.errors import InputError
from recipe.arguments import parse_arguments
from recipe.batching import Collator
from recipe.checks import check_targets
from recipe.data import read_selected_rows, split_rows
from recipe.dimensions import describe_targets, label_by_region, use_dimensions, weigh_regions
from recipe.options import DataArguments
from recipe.stages import build_config
from recipe.trainer import StartEpoch, compute_metrics, epoch_history
from recipe.training_arguments import build_training_arguments

SCALES = {"valence": [1.0, 5.0], "arousal": [1.0, 5.0]}
ALONE = ["--targets", "dimensions", "--dimensions", json.dumps(SCALES), "--ce_weight", "0"]


def data(**options):
    return DataArguments(**{"corpus": "folder", "targets": "dimensions", "dimensions": SCALES, **options})


def write_csv(folder, header, *lines):
    for index in range(len(lines)):
        write_wav(folder / f"{index}.wav", 0.3, seed=index)
    text = "\n".join([header, *(f"{index}.wav,{line}" for index, line in enumerate(lines))])
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return str(folder / "list.csv")


def test_a_csv_gives_columns_of_numbers_without_labels_and_empty_cells_are_dropped(tmp_path, capsys):
    lines = [f"s{index % 4},{1 + index % 5},{5 - index % 4}" for index in range(15)]
    path = write_csv(tmp_path, "path,speaker,Valence,arousal", *lines, "s1,,2")
    rows = read_selected_rows(
        data(csv=path, dimensions={"arousal": [1.0, 5.0], "valence": [1.0, 5.0]}, corpus="folder")
    )
    assert rows["dimensions"][:3] == [[5, 1], [4, 2], [3, 3]] and len(rows) == 15
    assert "1 of 16 utterances have no values and are dropped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("loud", "'loud' is not a number"),
        ("6.5", "valence=6.5 of 0.wav is not from 1 to 5"),
        ("nan", "is not a number"),
    ],
)
def test_a_cell_that_is_no_value_of_the_scale_is_refused(tmp_path, cell, message):
    path = write_csv(tmp_path, "path,label,valence,arousal", f"a,{cell},2", "b,1,1")
    with pytest.raises(InputError, match=message):
        read_selected_rows(data(csv=path, targets="labels_and_dimensions"))


def test_a_missing_column_is_named(tmp_path):
    path = write_csv(tmp_path, "path,label,valence", "a,1", "b,2")
    with pytest.raises(InputError, match="has no column 'arousal'"):
        read_selected_rows(data(csv=path))
    with pytest.raises(InputError, match="list them in --csv"):
        read_selected_rows(data(data_dir=str(tmp_path)))
    rated = labelled_rows(["sad", "happy"], valence=[1.0, 2.0])
    with pytest.raises(InputError, match="has no column 'arousal': use a corpus that has ratings"):
        use_dimensions(rated, "emodb", data())


def test_utterances_without_ratings_are_dropped(capsys):
    rated = labelled_rows(["sad", "happy", "sad"], valence=[1.0, None, 3.0], arousal=[2.0, 2.0, None])
    assert use_dimensions(rated, "iemocap", data())["dimensions"][:] == [[1.0, 2.0]]
    assert "2 of 3 utterances have no values" in capsys.readouterr().err
    with pytest.raises(InputError, match="no utterance has a value for each"):
        use_dimensions(rated.select([1]), "iemocap", data())


def test_labels_can_give_the_values_and_those_without_are_dropped(capsys):
    rows = labelled_rows(["sad", "happy", "neutral", "happy"])
    mapped = use_dimensions(rows, "ravdess", data(dimension_map={"sad": [1.5, 2.0], "happy": [4.5, 4.0]}))
    assert mapped["dimensions"][:] == [[1.5, 2], [4.5, 4], [4.5, 4]]
    assert "1 of 4 utterances have labels that dimension_map does not list" in capsys.readouterr().err
    with pytest.raises(InputError, match="dimension_map: ravdess has no label 'glad'"):
        use_dimensions(rows, "ravdess", data(dimension_map={"glad": [1.0, 1.0]}))


def test_regions_are_the_labels_of_dimensions_alone_and_weigh_the_same():
    values = [[1.0, 1.0], [1.0, 5.0], [2.0, 4.0], [4.0, 3.0]]
    rows = labelled_rows(["sad"] * 4).add_column("dimensions", values)
    labelled = label_by_region(rows, SCALES)
    names = labelled.features["label"].names
    assert [names[index] for index in labelled["label"]] == [
        "valence- arousal-",
        *["valence- arousal+"] * 2,
        "valence+ arousal+",
    ]
    assert weigh_regions(labelled, SCALES) == [1.0, 0.5, 1.0, 1.0]  # 4 / (4 x 1), 4 / (4 x 2), none, 4 / (4 x 1)
    fields = describe_targets(data(dimension_map={"sad": [1, 1]}), labelled)
    assert fields["dimension_source"] == "mapped" and fields["classes_are_regions"]
    assert describe_targets(data(corpus="demo"))["dimension_source"] == "known"
    assert describe_targets(data(targets="labels_and_dimensions"))["dimension_source"] == "rated"
    assert describe_targets(data(targets="labels")) == {}


def test_the_values_of_the_demo_corpus_are_those_that_can_be_heard(demo):
    import soundfile

    rows = read_selected_rows(
        data(corpus="demo", data_dir=str(demo), dimensions={"valence": [-1, 1], "arousal": [-1, 1]})
    )
    one = rows.select(range(0, 64))
    loudness = [20 * np.log10(np.sqrt(np.mean(soundfile.read(audio["path"])[0] ** 2))) for audio in one["audio"]]
    arousal = np.array(one["dimensions"][:])[:, 1]
    assert np.corrcoef(loudness, arousal)[0, 1] > 0.8
    split = split_rows(data(corpus="demo", dimensions={"valence": [-1, 1], "arousal": [-1, 1]}), rows)
    assert split["train"].features["label"].num_classes == 4


def test_a_batch_holds_the_values_beside_the_labels():
    prepared = [{"input_values": torch.zeros(5), "labels": 1, "dimensions": [1.0, 2.0]}] * 2
    batch = Collator("input_values")(prepared)
    assert batch["dimensions"].tolist() == [[1, 2], [1, 2]] and batch["dimensions"].dtype == torch.float32
    assert "dimensions" not in Collator("input_values")([{"input_values": torch.zeros(5), "labels": 1}])


def test_the_epoch_with_the_highest_mean_ccc_is_kept(tmp_path):
    trainer = make_trainer(tmp_path, eval_strategy="epoch", metric_for_best_model="ccc", save_strategy="epoch")
    chosen = []
    for step, ccc in enumerate([0.2, 0.5, 0.4, 0.6], start=1):
        scores = {"eval_ua": 1 - ccc, "eval_wa": 0.5, "eval_ccc": ccc}
        trainer.state.global_step = step
        trainer.state.log_history.append({"epoch": float(step), "step": step, **scores})
        trainer._determine_best_metric(scores, trial=None)
        chosen.append(trainer.state.best_global_step)
    assert chosen == [1, 2, 2, 4]
    assert [line["ccc"] for line in epoch_history(trainer.state.log_history)] == [0.2, 0.5, 0.4, 0.6]


def test_the_scores_of_an_epoch_have_the_mean_ccc_over_dimensions_and_corpora():
    values = np.array([[1.0, 1], [2, 3], [3, 2], [5, 4]])
    targets = np.array([[1.0, 2], [2, 3], [4, 2], [5, 5]])
    evaluation = EvalPrediction((np.eye(4), values), (np.arange(4), targets))

    def ccc(part):
        x, y = values[part], targets[part]
        difference = x.mean(0) - y.mean(0)
        return 2 * ((x - x.mean(0)) * (y - y.mean(0))).mean(0) / (x.var(0) + y.var(0) + difference**2)

    assert compute_metrics(evaluation)["ccc"] == pytest.approx(ccc(slice(None)).mean())
    halves = (ccc(slice(2)).mean() + ccc(slice(2, 4)).mean()) / 2
    assert compute_metrics(evaluation, ["a", "a", "b", "b"])["ccc"] == pytest.approx(halves)


def test_a_resumed_run_goes_on_with_the_weight_of_its_epoch(tmp_path):
    trainer = make_trainer(tmp_path)
    (callback,) = (each for each in trainer.callback_handler.callbacks if isinstance(each, StartEpoch))
    for epoch, share in ((0, 1), (3.0, 0.406), (5.0, 0)):
        callback.on_epoch_begin(None, SimpleNamespace(epoch=epoch), None, model=trainer.model)
        assert trainer.model.objective.region_share == pytest.approx(share)


def test_options_choose_the_selection_and_what_a_batch_has_to_learn(tmp_path):
    for targets in ("dimensions", "labels_and_dimensions"):
        argv = ["--targets", targets, "--dimensions", json.dumps(SCALES), "--use_cpu", "--output_dir", str(tmp_path)]
        built = build_training_arguments(tmp_path, parse_arguments(argv, "")[1])
        assert (built.metric_for_best_model, built.greater_is_better) == ("ccc", True)
        assert built.label_names == ["labels", "dimensions"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--targets", "dimensions"], "dimensions={} is not a map of 1 to 6 dimensions"),
        (["--targets", "dimensions", "--dimensions", '{"valence": [5, 1]}'], "the scale of valence is"),
        ([*ALONE, "--dimension_map", '{"sad": [1]}'], "'sad' has 1 values for 2 dimensions"),
        ([*ALONE, "--class_weights", "balanced"], "--class_weights weighs labels"),
        ([*ALONE, "--batch_size", "1"], "the concordance of dimensions needs several utterances"),
        (["--dimensions", json.dumps(SCALES)], "--dimensions requires --targets dimensions"),
        (["--targets", "dimensions", "--dimensions", '{"valence": 5}'], "dimensions"),
    ],
)
def test_options_that_contradict_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        check_targets(parse_arguments(options, "")[1])


def test_a_model_of_dimensions_alone_refuses_a_loss_of_labels():
    argv = [*ALONE[:-2], "--encoder", "none", "--stage1_pooling", "mean", "--use_cpu"]
    with pytest.raises(ValueError, match="ce_weight=1 trains labels, and dimensions alone have none"):
        build_config(1, parse_arguments(argv, "")[1])
    config = build_config(1, parse_arguments([*argv, "--ce_weight", "0"], "")[1])
    assert config.dimensions == SCALES and config.num_labels == 4
