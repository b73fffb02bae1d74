"""The cells of an experiment share the output of the frozen part of the encoder."""

import numpy as np
import pytest
import torch
import yaml
from conftest import tiny_model, write_wav
from running import lines_of
from safetensors.torch import load_file

from experiments.cells import Cell, read_experiment
from experiments.run import start_processes, train_cells

pytestmark = pytest.mark.slow

BASE = {
    **{"layer_mix": "normalized", "average_frames": 2, "freeze_encoder_layers": 1, "corpus": "folder"},
    **{"speed_factors": [0.9, 1.0], "num_epochs": 2, "batch_size": 4, "logging_steps": 1, "use_cpu": True},
    **{"learning_rate": 0.01, "stage2": {"freeze_encoder_layers": 2, "average_after": 1}},
}
VARIANTS = {
    "cls": {"options": {"eal_weight": 0, "fual_weight": 0}},
    "concat": {"options": {"cls_in_embedding": "concat", "frame_classifier": "separate"}},
}


@pytest.fixture
def experiment(tmp_path):
    """Two variants on a frozen Whisper encoder and twenty utterances of noise; nothing is trained yet."""
    seeds = iter(range(100))
    for index, part in enumerate(("train", "train", "train", "val", "test")):
        for label in ("angry", "sad"):
            for number in range(2):
                write_wav(tmp_path / "corpus" / part / label / f"{index}{number}.wav", seed=next(seeds))
    tiny_model("whisper", seed=2).encoder.save_pretrained(tmp_path / "encoder")
    paths = {"encoder": str(tmp_path / "encoder"), "data_dir": str(tmp_path / "corpus"), "output_dir": str(tmp_path)}
    content = {"title": "Frozen", "config": str(tmp_path / "base.yaml"), "folds": [1], "variants": VARIANTS}
    for name, written in (("base", BASE | paths), ("frozen", content)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    return read_experiment(str(tmp_path / "frozen.yaml"), [])


def test_variants_of_a_frozen_encoder_compute_its_output_once(experiment, tmp_path, capsys):
    """Stage 2 freezes all layers, also the one that stage 1 has trained; EAL and FUAL train what follows."""
    start_processes(experiment)
    stage1, cls, concat = experiment.list_cells()
    train_cells(experiment, [stage1, cls])
    kept = {path: path.stat().st_mtime_ns for path in experiment.features_dir.rglob("*.npy")}
    assert {path.parent.name for path in kept} == {"fold1-seed0"}  # stage 1 is finished, the other variant is not
    assert len(kept) == 12 * 2 + 4 + 4 and {np.load(path).shape[1] for path in kept} == {3 * 32}
    experiment.features_dir.rename(tmp_path / "kept")
    shared = read_experiment(str(experiment.path), ["--feature_cache_dir", str(tmp_path / "kept" / "fold1-seed0")])
    train_cells(shared, [concat])
    assert capsys.readouterr().out.count("the frozen convolutions and 2 layers run once") == 2
    found = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.npy")}
    assert found == {path.name: time for path, time in kept.items()}  # nothing was computed again, or removed

    folders = [experiment.find_stage_folder(cell) for cell in (stage1, concat)]
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    pretrained = load_file(tmp_path / "encoder" / "model.safetensors")
    for name in pretrained:
        if not name.startswith("layer_norm"):
            assert torch.equal(second[f"encoder.{name}"], first[f"encoder.{name}"]), name
    assert not torch.equal(first["encoder.layers.1.fc1.weight"], pretrained["layers.1.fc1.weight"])
    losses = [line for line in lines_of(folders[1] / "training_log.jsonl") if "loss" in line]
    assert len(losses) == 6 and min(line[name] for line in losses for name in ("eal_loss", "fual_loss")) > 0


def test_the_cache_goes_when_the_last_cell_is_finished(experiment):
    start_processes(experiment)
    train_cells(experiment, experiment.list_cells())
    assert not experiment.features_dir.exists()
    folders = {experiment.find_features_folder(cell).name for cell in experiment.list_cells()}
    assert folders == {"stage1", "fold1-seed0"}
    assert experiment.find_features_folder(Cell(2, 1, experiment.variants[0])).name == "fold2-seed1"
