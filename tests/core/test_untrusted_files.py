"""Untrusted models, encoders and checkpoints: their files are read as data and never executed."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT, tiny_model
from running import BRIEF
from transformers import Wav2Vec2FeatureExtractor

from core.errors import InputError
from core.loading import load_model, make_feature_extractor
from recipe.arguments import parse_arguments
from recipe.checkpoints import FILES, mark_complete
from recipe.stages import build_model, find_source

SOURCES = sorted(path for path in ROOT.rglob("*.py") if not {"tests", "outputs"} & set(path.relative_to(ROOT).parts))


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def trap(tmp_path):
    """A file that exists only if a payload was executed."""
    torch.save(Payload(tmp_path / "sprung"), tmp_path / "pickle")
    torch.load(tmp_path / "pickle", weights_only=False)
    (tmp_path / "sprung").unlink()  # it works; from now on it must not
    yield tmp_path / "sprung"
    assert not (tmp_path / "sprung").exists()


def poison(path, trap):
    """Replace a file with one that runs the payload when it is unpickled."""
    path.unlink(missing_ok=True)
    torch.save({"state": Payload(trap)}, path)


@pytest.fixture
def folder(tmp_path):
    """A model folder as written by train.py, into which each test puts its payload."""
    model, extractor = tiny_model(), Wav2Vec2FeatureExtractor(return_attention_mask=True)
    model.save_pretrained(tmp_path / "model")
    extractor.save_pretrained(tmp_path / "model")
    model.encoder.save_pretrained(tmp_path / "model" / "encoder")
    extractor.save_pretrained(tmp_path / "model" / "encoder")
    load_model(str(tmp_path / "model"))
    return tmp_path / "model"


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def with_pickled_weights(folder, trap):
    (folder / "model.safetensors").unlink()
    poison(folder / "pytorch_model.bin", trap)


def with_code(folder, trap):
    (folder / "evil.py").write_text(f"open({str(trap)!r}, 'w')")
    change(folder / "config.json", auto_map=dict.fromkeys(("AutoConfig", "AutoModel"), "evil.X"), model_type="evil")
    change(folder / "preprocessor_config.json", auto_map={"AutoFeatureExtractor": "evil.X"})


def with_an_extractor(folder, trap):
    (folder / "evil.py").write_text(f"open({str(trap)!r}, 'w')")
    change(folder / "preprocessor_config.json", auto_map={"AutoFeatureExtractor": "evil.X"}, feature_extractor_type="X")


def with_attention_code(folder, trap):
    change(folder / "config.json", attn_implementation="somebody/kernel")


def with_attention_code_of_the_encoder(folder, trap):
    encoder = json.loads((folder / "config.json").read_text())["encoder_config"]
    change(folder / "config.json", encoder_config={**encoder, "_attn_implementation": "somebody/kernel"})


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (with_pickled_weights, "no file named model.safetensors"),
        (with_code, "has model_type 'evil'"),
        (with_an_extractor, "custom code"),
        (with_attention_code, "attn_implementation='somebody/kernel' refers to code on the Hub, which is never run"),
        (with_attention_code_of_the_encoder, "_attn_implementation='somebody/kernel' refers to code on the Hub"),
    ],
)
def test_a_model_that_would_run_code_is_refused_in_one_line(folder, trap, capfd, hostile, message):
    hostile(folder, trap)
    with pytest.raises(InputError, match=message) as error:
        load_model(str(folder))
    assert "\n" not in str(error.value)
    assert "[y/N]" not in "".join(capfd.readouterr())  # nobody is asked whether to run it


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (
            with_pickled_weights,
            "contains more than weights, so it was not loaded: choose an encoder with model.safetensors",
        ),
        (with_code, "custom code"),
        (with_attention_code, "attn_implementation='somebody/kernel' refers to code on the Hub, which is never run"),
    ],
)
def test_an_encoder_that_would_run_code_is_refused_in_one_line(folder, trap, capfd, hostile, message):
    rows = labelled_rows()
    hostile(folder / "encoder", trap)
    args = parse_arguments(["--encoder", str(folder / "encoder")], description="")[1]
    with pytest.raises(InputError, match=message) as error:
        build_model(1, args, rows)
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)
    assert "[y/N]" not in "".join(capfd.readouterr())


def test_an_encoder_in_an_old_format_is_still_read_as_weights(folder):
    encoder = tiny_model().encoder
    torch.save(encoder.state_dict(), folder / "encoder" / "pytorch_model.bin")
    (folder / "encoder" / "model.safetensors").unlink()
    args = parse_arguments(["--encoder", str(folder / "encoder")], description="")[1]
    built = build_model(1, args, labelled_rows())
    assert all(torch.equal(built.encoder.state_dict()[name], value) for name, value in encoder.state_dict().items())


def test_an_extractor_of_an_encoder_that_would_run_code_is_refused(folder, trap):
    with_an_extractor(folder / "encoder", trap)
    args = parse_arguments(["--encoder", str(folder / "encoder")], description="")[1]
    with pytest.raises(InputError, match="encoder needs custom code, which is never run here"):
        make_feature_extractor(tiny_model().config, find_source(1, args), None)


def labelled_rows():
    from datasets import ClassLabel, Dataset

    return Dataset.from_dict({"label": [0, 1]}).cast_column("label", ClassLabel(names=["angry", "calm"]))


# ------------------------------------------------------------------------------------------ checkpoints


@pytest.fixture(scope="module")
def interrupted(hostile_csv, tmp_path_factory):
    """A run that ended after its last update, before its results were written; and its options."""
    from recipe.run import run

    output = tmp_path_factory.mktemp("interrupted")
    options = [
        *BRIEF,
        "--stage",
        "1",
        "--corpus",
        "folder",
        "--csv",
        str(hostile_csv),
        "--max_steps",
        "1",
        "--output_dir",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipe.run.save_and_score", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(parse_arguments([*options, str(output)], description=""))
    return output, options


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_a_checkpoint_that_would_run_code_is_refused_in_one_line(interrupted, tmp_path, trap, name):
    checkpoint, again = resumable(interrupted, tmp_path)
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    else:
        assert (checkpoint / name).is_file()
    poison(checkpoint / name, trap)
    list_again(checkpoint)
    with pytest.raises(
        InputError, match=f"{checkpoint} contains more than tensors and numbers, so it was not loaded"
    ) as e:
        again()
    assert "\n" not in str(e.value) and "weights_only" not in str(e.value)


def test_the_saved_arguments_of_a_checkpoint_are_never_read(interrupted, tmp_path, trap):
    checkpoint, again = resumable(interrupted, tmp_path)
    assert (checkpoint / "training_args.bin").is_file()
    poison(checkpoint / "training_args.bin", trap)
    list_again(checkpoint)
    again()
    assert (tmp_path / "run" / "stage1" / "results.json").is_file()


def list_again(checkpoint):
    """An attacker who changes a checkpoint can also change its list of files."""
    (checkpoint / FILES).unlink()
    mark_complete(checkpoint)


def resumable(interrupted, tmp_path):
    """A copy of the interrupted run: its checkpoint, and what goes on from it."""
    from recipe.run import run

    output, options = interrupted
    shutil.copytree(output, tmp_path / "run")
    (checkpoint,) = (tmp_path / "run" / "stage1" / "checkpoints").iterdir()
    return checkpoint, lambda: run(parse_arguments([*options, str(tmp_path / "run")], description=""))


# ---------------------------------------------------------------------------------------- the sources


def dangers(source):
    """Find calls and imports in Python source that could execute data, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = node.module if isinstance(node, ast.ImportFrom) else None
        for imported in [f"{module}.{name}" for name in names] if module else names:
            if imported.split(".")[0] in PICKLES and imported != "pickle.UnpicklingError":
                found.append((node.lineno, imported))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            is_yaml = called.startswith("yaml.") and called not in ("yaml.safe_load", "yaml.safe_dump", "yaml.compose")
            is_load = called == "torch.load" and given.get("weights_only") != "True"
            is_shell = given.get("shell", "False") != "False" or called in ("os.system", "os.popen")
            is_pickle = given.get("allow_pickle", "False") != "False" or called.endswith(".read_pickle")
            if called in ("eval", "exec") or is_yaml or is_load or is_shell or is_pickle:
                found.append((node.lineno, ast.unparse(node)))
    return found


PICKLES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_data_says(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "exec(text)",
        "import pickle",
        "from pickle import UnpicklingError, loads",
        "import joblib as fast",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_a_danger_would_be_found(line):
    assert len(dangers(f"def work():\n    model.eval()\n    {line}\n")) == 1
