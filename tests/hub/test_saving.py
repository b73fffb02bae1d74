"""What is saved is complete: each file that a config.json names lies beside it, wherever the model came from."""

import json
import shutil
import sys
import textwrap

import numpy as np
import pytest
from conftest import ROOT
from loopback import REPO, TOKEN
from running import fresh
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

from core.shipped import MINI_MODEL

# A user's own program: loads the model in one of three ways, saves it in each way that there is.
SAVE = """
import json, sys
from pathlib import Path
from transformers import (AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification, Trainer, TrainingArguments,
                          pipeline)

source, target, root, how = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
trust = {"trust_remote_code": True}
if how == "project":
    sys.path.insert(0, root)
    from core.loading import load_model
    model, extractor = load_model(source)
else:
    model = AutoModelForAudioClassification.from_pretrained(source, **trust)
    extractor = AutoFeatureExtractor.from_pretrained(source, **trust)
model.save_pretrained(target / "model")
extractor.save_pretrained(target / "model")
arguments = TrainingArguments(output_dir=str(target / "trainer"), use_cpu=True, report_to=[])
Trainer(model=model, args=arguments, processing_class=extractor).save_model()
model.save_pretrained(target / "sharded", max_shard_size="500KB")
extractor.save_pretrained(target / "sharded")
model.config.save_pretrained(target / "config")
extractor.save_pretrained(target / "extractor")
if how == "hub":
    model.push_to_hub("someone/ser-align-demo")
    extractor.push_to_hub("someone/ser-align-demo")
print("RESULT" + json.dumps([type(model).__module__, type(model.config).__module__]))
"""

LOAD = """
import json, sys
import numpy as np
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

waveform, trust, found = np.load(sys.argv[2]), {"trust_remote_code": True}, {}
for name in ("model", "trainer", "sharded"):
    for task in ("speech-emotion-recognition", "audio-classification"):
        answer = pipeline(task, f"{sys.argv[1]}/{name}", **trust)(waveform, top_k=None)
        found[f"{name}, {task}"] = {part["label"]: part["score"] for part in answer}
config = AutoConfig.from_pretrained(f"{sys.argv[1]}/config", **trust)
found["config"] = AutoModelForAudioClassification.from_config(config, **trust).num_parameters()
extractor = AutoFeatureExtractor.from_pretrained(f"{sys.argv[1]}/extractor", **trust)
found["extractor"] = list(extractor(waveform, sampling_rate=16000)["input_features"][0].shape)
print("RESULT" + json.dumps(found))
"""


def list_promised(folder):
    """Files that the configurations of a folder name, and those that these import."""
    names = set()
    for path in (folder / "config.json", folder / "preprocessor_config.json"):
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        tasks = [task["impl"] for task in content.get("custom_pipelines", {}).values()]
        names |= {f"{name.partition('.')[0]}.py" for name in (*content.get("auto_map", {}).values(), *tasks)}
    assert names
    for name in tuple(names):
        names |= {path.rpartition("/")[2] for path in get_relative_import_files(folder / name)}
    return names


@pytest.fixture(scope="module")
def waveform(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "audio.npy"
    np.save(path, np.random.default_rng(0).normal(size=24000).astype("f4"))
    return path


@pytest.fixture(scope="module")
def expected(waveform, tmp_path_factory):
    """The shipped model's own answers."""
    folder = tmp_path_factory.mktemp("shipped")
    for name in ("model", "trainer", "sharded", "config", "extractor"):
        shutil.copytree(MINI_MODEL, folder / name)
    return fresh(LOAD, folder, waveform, home=folder / "hf")[0]


def check_saved(target, waveform, expected, home):
    for name in ("model", "trainer", "sharded", "config", "extractor"):
        present = {path.name for path in (target / name).iterdir()}
        assert list_promised(target / name) <= present, name
        for code in present & {path.name for path in ROOT.glob("*_ser_align.py")}:
            assert (target / name / code).read_text() == (ROOT / code).read_text()
    assert len(list((target / "sharded").glob("*.safetensors"))) > 1
    found, _ = fresh(LOAD, target, waveform, home=home)
    assert found["config"] == expected["config"] and found["extractor"] == expected["extractor"]
    for name, scores in found.items():
        if isinstance(scores, dict):
            assert scores == pytest.approx(expected[name], abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("how", ["project", "published folder"])
def test_a_user_saves_a_model_that_came_from_a_folder(how, waveform, expected, tmp_path):
    shutil.copytree(MINI_MODEL, tmp_path / "source")
    modules, _ = fresh(SAVE, tmp_path / "source", tmp_path, ROOT, how, home=tmp_path / "hf")
    assert all(name.startswith("transformers_modules") == (how != "project") for name in modules)
    if how != "project":
        shutil.rmtree(tmp_path / "source")
    check_saved(tmp_path, waveform, expected, tmp_path / "other")


@pytest.mark.slow
def test_a_user_saves_a_model_that_came_from_the_hub_and_pushes_it(hub, waveform, expected, tmp_path):
    hub.commits["a" * 40] = {path.name: path.read_bytes() for path in MINI_MODEL.iterdir()}
    online = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    modules, _ = fresh(SAVE, REPO, tmp_path, ROOT, "hub", home=tmp_path / "hf", **online)
    assert all(name.startswith("transformers_modules.someone") for name in modules)
    check_saved(tmp_path, waveform, expected, tmp_path / "other")
    pushed = tmp_path / "pushed"
    pushed.mkdir()
    for name, content in hub.files.items():
        (pushed / name).write_bytes(content)
    assert hub.main != "a" * 40 and list_promised(pushed) <= set(hub.files)


def test_the_model_needs_no_library_for_reading_audio():
    """transformers asks for what a file imports outside a try before it loads any of them."""
    for path in ROOT.glob("*_ser_align.py"):
        needed = {name for name in get_imports(path) if name not in sys.stdlib_module_names}
        assert needed <= {"torch", "transformers", "safetensors", "numpy"}, path.name  # the third comes with the second


WITHOUT_AUDIO = textwrap.dedent(
    """
    import json, sys
    sys.modules["soundfile"] = sys.modules["soxr"] = None
    from transformers import AutoModelForAudioClassification, pipeline
    model = AutoModelForAudioClassification.from_pretrained(sys.argv[1], trust_remote_code=True)
    try:
        pipeline("speech-emotion-recognition", sys.argv[1], trust_remote_code=True)
    except ImportError as error:
        print("RESULT" + json.dumps([model.num_parameters(), str(error)]))
    """
)


@pytest.mark.slow
def test_without_the_libraries_for_audio_the_model_loads_and_the_pipeline_names_them(tmp_path):
    (count, message), _ = fresh(WITHOUT_AUDIO, MINI_MODEL, home=tmp_path / "hf")
    assert count > 500_000 and "pip install soundfile soxr" in message
