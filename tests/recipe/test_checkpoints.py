"""Whatever happens, a complete checkpoint remains, and a resumed run ends with the same weights."""

import os
import resource
import shutil

import pytest
import torch
from making import make_trainer
from transformers import TrainerCallback

from core.errors import InputError
from core.json_files import write_json
from recipe.checkpoints import best_until, checkpoints_in, delete_older, is_complete, last_complete, mark_complete

EPOCHS = {"save_strategy": "epoch", "num_train_epochs": 3, "max_steps": -1, "eval_strategy": "epoch"}
EPOCHS |= {"metric_for_best_model": "ua", "learning_rate": 1e-3}


def trained(folder, callback=None, resume=None):
    trainer = make_trainer(folder, ema_decay=0.8, **EPOCHS)
    if callback is not None:
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The checkpoints of three epochs of four updates."""
    folder = tmp_path_factory.mktemp("whole")
    trained(folder)
    return folder


FILES = ["model.safetensors", "averaged/model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]


@pytest.mark.parametrize("name", [*FILES, "trainer_state.json", "files.json"])
@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, path.stat().st_size // 2), os.remove])
def test_the_checkpoint_before_one_that_is_cut_short_is_gone_on_from(whole, tmp_path, capsys, name, damage):
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole, folder)
    *_, before, newest = checkpoints_in(folder)
    assert last_complete(folder) == newest and not capsys.readouterr().out
    damage(newest / name)
    assert last_complete(folder) == before and not newest.exists()
    assert capsys.readouterr().out == f"  deleted {newest}: it, or the best checkpoint before it, is incomplete\n"


def test_the_newest_and_the_best_until_each_of_them_stay(tmp_path):
    best = {1: 1, 2: 1, 3: 1, 4: 1, 5: 5, 6: 5, 7: 7, 8: 7, 9: 7}
    left = []
    for step in best:
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        write_json(checkpoint / "trainer_state.json", {"best_global_step": best[step]})
        delete_older(tmp_path)
        assert last_complete(tmp_path) != checkpoint  # it is not marked complete yet, and is deleted
        checkpoint.mkdir()
        write_json(checkpoint / "trainer_state.json", {"best_global_step": best[step]})
        mark_complete(checkpoint)
        mark_complete(checkpoint)  # the list of the first time is none of its files
        delete_older(tmp_path)
        left.append([int(path.name.split("-")[1]) for path in checkpoints_in(tmp_path)])
    assert left[:5] == [[1], [1, 2], [1, 2, 3], [1, 3, 4], [1, 4, 5]]
    assert left[5:] == [[5, 6], [5, 6, 7], [7, 8], [7, 8, 9]]
    shutil.rmtree(tmp_path / "checkpoint-7")  # the best: without it, neither of the others ends as it would have
    assert last_complete(tmp_path) is None and not checkpoints_in(tmp_path)


class Full(TrainerCallback):
    """After the first checkpoint no file can grow beyond this, as on a full disk."""

    def __init__(self, size):
        self.size = size

    def on_save(self, args, state, control, **kwargs):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_a_full_disk_is_one_line_and_the_run_then_ends_as_if_it_had_not_been(whole, tmp_path, name):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (checkpoints_in(whole)[-1] / name).stat().st_size - 1
    try:
        with pytest.raises(InputError, match=r"checkpoint-8 could not be written \(.*\): free up disk space"):
            trained(tmp_path, callback=Full(size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    complete = last_complete(tmp_path)
    assert complete.name == "checkpoint-4"
    trained(tmp_path, resume=str(complete))
    last, expected = (checkpoints_in(folder)[-1] for folder in (tmp_path, whole))
    assert is_complete(last) and best_until(last).name == best_until(expected).name
    for name in ("model.safetensors", "averaged/model.safetensors"):
        assert (last / name).read_bytes() == (expected / name).read_bytes()
    states = [torch.load(path / "optimizer.pt", weights_only=True)["state"] for path in (last, expected)]
    assert all(torch.equal(states[0][key]["exp_avg"], states[1][key]["exp_avg"]) for key in states[1])
