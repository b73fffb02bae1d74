"""A model or an encoder whose files are damaged or whose name is wrong: one line that says what to do."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, tiny_model
from loopback import TOKEN
from running import environment, run_script
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2FeatureExtractor

from core.errors import InputError
from core.loading import load_model
from modeling_ser_align import SERAlignForAudioClassification
from recipe.arguments import parse_arguments
from recipe.stages import check_model

WEIGHTS, CONFIG, EXTRACTOR = "model.safetensors", "config.json", "preprocessor_config.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 2289000\n"
PULL = "is a Git LFS pointer instead of the file itself: run git lfs pull where it was cloned, or copy or download it"


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def remove(name):
    return lambda folder: (folder / name).unlink()


def shard(text):
    """An index in the place of the weights."""

    def damage(folder):
        (folder / WEIGHTS).unlink()
        (folder / f"{WEIGHTS}.index.json").write_text(text)

    return damage


def reshape(folder):
    config = json.loads((folder / CONFIG).read_text())
    config.get("encoder_config", config)["intermediate_size"] = 40
    (folder / CONFIG).write_text(json.dumps(config))


def lose(folder):
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if name.endswith("attention.k_proj.weight"))
    save_file({each: value for each, value in weights.items() if each != name}, folder / WEIGHTS, {"format": "pt"})


SHARDS = json.dumps({"weight_map": {"classifier.weight": "model-00001-of-00002.safetensors"}})
DAMAGES = {
    "cut within a tensor": (cut(WEIGHTS, 50_000), f"contains a {WEIGHTS} that is incomplete or damaged"),
    "cut within the header": (cut(WEIGHTS, 100), f"contains a {WEIGHTS} that is incomplete or damaged"),
    "empty weights": (cut(WEIGHTS, 0), f"contains a {WEIGHTS} that is empty: copy or download it again"),
    "pointer to weights": (write(WEIGHTS, POINTER), f"contains a {WEIGHTS} that {PULL}"),
    "a page of an error": (write(WEIGHTS, "<!DOCTYPE html>" + 999 * "x"), f"{WEIGHTS} that is incomplete or damaged"),
    "no weights": (remove(WEIGHTS), f"contains no {WEIGHTS}: copy or download it again, with all its files"),
    "missing shards": (
        shard(SHARDS),
        f"contains no model-00001-of-00002.safetensors, which {WEIGHTS}.index.json names",
    ),
    "damaged index": (shard("{"), f"contains a {WEIGHTS}.index.json that is not a JSON object"),
    "other shapes": (reshape, "weights do not fit the configuration, among them"),
    "lost weights": (lose, " 1 "),
    "no configuration": (remove(CONFIG), CONFIG),
    "cut configuration": (cut(CONFIG, 30), f"contains a {CONFIG} that is not a JSON object"),
    "empty configuration": (cut(CONFIG, 0), f"contains a {CONFIG} that is empty"),
    "pointer to a configuration": (write(CONFIG, POINTER), f"contains a {CONFIG} that {PULL}"),
    "configuration is a list": (write(CONFIG, "[1]"), f"contains a {CONFIG} that is not a JSON object"),
    "no extractor": (remove(EXTRACTOR), f"contains no {EXTRACTOR}: copy or download it again"),
    "cut extractor": (cut(EXTRACTOR, 30), f"contains a {EXTRACTOR} that is not a JSON object"),
    "extractor is a list": (write(EXTRACTOR, "[]"), f"contains a {EXTRACTOR} that is not a JSON object"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model and an encoder as they should be."""
    folder, model = tmp_path_factory.mktemp("whole"), tiny_model(pooling="attentive")
    for part, name in ((model, "model"), (model.encoder, "encoder")):
        part.save_pretrained(folder / name)
        Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder / name)
    return folder


def damage(whole, name, tmp_path):
    shutil.copytree(whole / name, tmp_path / name)
    return tmp_path / name


def check_encoder(folder):
    """What train.py does before it reads any audio, and then the weights."""
    check_model(1, parse_arguments(["--encoder", str(folder)], "")[1])
    SERAlignForAudioClassification.from_pretrained_encoder(str(folder))


def check_stage1(folder):
    check_model(2, parse_arguments(["--stage", "2", "--init_from", str(folder), "--encoder", "none"], "")[2])


def assert_one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_one_line(whole, name, tmp_path):
    folder = damage(whole, "model", tmp_path)
    load_model(str(folder))
    DAMAGES[name][0](folder)
    with pytest.raises(InputError) as error:
        load_model(str(folder))
    assert_one_line(error, f"--model {folder}", DAMAGES[name][1])


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_encoder_is_one_line(whole, name, tmp_path):
    folder = damage(whole, "encoder", tmp_path)
    DAMAGES[name][0](folder)
    is_found_by_its_reader = name in ("other shapes", "lost weights")
    with pytest.raises(ValueError) as error:
        check_encoder(folder)
    assert is_found_by_its_reader or isinstance(error.value, InputError)
    assert_one_line(error, str(folder) if name != "other shapes" else "", DAMAGES[name][1])


@pytest.mark.parametrize("name", [name for name in DAMAGES if name not in ("other shapes", "lost weights")])
def test_a_damaged_stage_1_is_one_line_before_any_audio_is_read(whole, name, tmp_path):
    folder = damage(whole, "model", tmp_path)
    check_stage1(folder)
    DAMAGES[name][0](folder)
    with pytest.raises(InputError) as error:
        check_stage1(folder)
    assert_one_line(error, str(folder), DAMAGES[name][1] if name != "no configuration" else "contains no model")


@pytest.mark.parametrize("part", ["model", "encoder"])
@pytest.mark.parametrize("name", ["cut within a tensor", "empty weights", "pointer to weights"])
def test_a_users_own_program_is_told_too(whole, part, name, tmp_path):
    folder = damage(whole, part, tmp_path)
    DAMAGES[name][0](folder)
    cls = SERAlignForAudioClassification
    load = cls.from_pretrained if part == "model" else cls.from_pretrained_encoder
    with pytest.raises(OSError, match=r"is empty, incomplete or a Git LFS pointer .*: run git lfs pull"):
        load(str(folder))


def test_a_program_that_asks_for_another_number_of_labels_is_told_how(whole):
    with pytest.raises(
        ValueError, match=r"classifier.bias, .* \[3\] in the file and \[5\] in the model: pass ignore_mis"
    ):
        SERAlignForAudioClassification.from_pretrained(whole / "model", num_labels=5)
    with pytest.raises(ValueError, match=r"6 weights .* \[48\] in the file and \[40\] .* those of another model"):
        SERAlignForAudioClassification.from_pretrained(whole / "model", encoder_config={"intermediate_size": 40})


def test_an_encoder_is_loaded_with_fields_of_the_configuration_alone(whole):
    with pytest.raises(TypeError, match="revision is not a field of SERAlignConfig"):
        SERAlignForAudioClassification.from_pretrained_encoder(str(whole / "encoder"), revision="main")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("no/such/folder", "is not a folder: check the path, or give a name on the Hub"),
        ("./nothing", "is not a folder: check the path"),
        ("owner/nothing", "is not a folder and was not downloaded before, and HF_HUB_OFFLINE is set: unset it"),
        ("odd name!", "is neither a folder nor a name on the Hub, such as owner/name"),
        ("docs", "contains no config.json: give the folder of a model"),
        ("models/ser-align-mini", "is a whole SER-Align model: --stage 2 --init_from models/ser-align-mini trains"),
    ],
)
def test_an_encoder_that_is_none_is_one_line(encoder, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError) as error:
        check_encoder(encoder)
    assert_one_line(error, f"--encoder {encoder} {message}")


def test_an_encoder_with_code_of_its_own_gives_no_advice_that_does_not_exist(whole, tmp_path):
    folder = damage(whole, "encoder", tmp_path)
    (folder / CONFIG).write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}))
    with pytest.raises(InputError) as error:
        check_encoder(folder)
    assert_one_line(error, f"--encoder {folder} needs custom code, which is never run here")
    assert "trust_remote_code" not in str(error.value)
    with pytest.raises(ValueError, match="needs custom code, which is never run here; an encoder is one of wav2vec2, "):
        SERAlignForAudioClassification.from_pretrained_encoder(str(folder))


# ------------------------------------------------------------------------------------------- the Hub

ASK = """
import socket, sys
from huggingface_hub import close_session
from core.errors import InputError
from core.loading import load_model
from recipe.arguments import parse_arguments
from recipe.stages import check_model

def refuse(*address, **options):
    raise ConnectionRefusedError

for name in sys.argv[1:]:
    if name == "out/of-reach":
        close_session()
        socket.create_connection = refuse
    for check in (load_model, lambda name: check_model(1, parse_arguments(["--encoder", name], "")[1])):
        try:
            check(name)
        except InputError as error:
            print(error)
"""


@pytest.mark.slow
def test_a_name_that_the_hub_refuses_is_one_line(hub, tmp_path):
    reasons = {
        "some/gated": "is gated: accept its terms on",
        "some/missing": "is neither a folder nor a model that you can read on the Hub",
        "out/of-reach": "is not a folder, and the Hub does not answer: check the network, or give a folder",
    }
    hub.refusals = {"some/gated": (403, "GatedRepo"), "some/missing": (404, "RepoNotFound")}
    variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ASK, *reasons]
    run = subprocess.run(
        command, cwd=ROOT, env={**environment(online=True), **variables}, capture_output=True, text=True, timeout=300
    )
    expected = [f"{name} {reason}" for name, reason in reasons.items() for _ in ("model", "encoder")]
    for line, words in zip(run.stdout.splitlines(), expected, strict=True):
        assert words in line, run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script", ["predict.py", "app.py", "export_onnx.py", "train.py"])
@pytest.mark.parametrize("name", ["cut within a tensor", "pointer to weights"])
def test_every_script_prints_one_line(whole, script, name, tmp_path):
    folder = damage(whole, "encoder" if script == "train.py" else "model", tmp_path)
    DAMAGES[name][0](folder)
    options = {"predict.py": ["examples/speech.flac"], "train.py": ["--use_cpu", "--output_dir", tmp_path / "run"]}
    option = "--encoder" if script == "train.py" else "--model"
    run = run_script(script, *options.get(script, []), option, folder, expect=1)
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith(f"error: {option} {folder} {DAMAGES[name][1]}")
