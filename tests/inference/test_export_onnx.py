"""The ONNX files give PyTorch's scores, alone and padded, and need neither torch nor transformers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from conftest import ROOT, TINY_ENCODERS, tiny_model
from running import environment, lines_of, run_anew, run_script
from sklearn.metrics import balanced_accuracy_score
from sounds import voices
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

import export_onnx
from configuration_ser_align import SERAlignConfig
from core.audio import read_audio
from core.errors import InputError
from core.loading import load_model
from core.shipped import MINI_MODEL
from examples import onnx_inference
from feature_extraction_ser_align import SERAlignFeatureExtractor
from inference import onnx_export, onnx_int8, onnx_options
from inference.onnx_export import OUTPUTS, WaveformModel, generate_audio, pad_utterances
from modeling_ser_align import SERAlignForAudioClassification
from recipe.corpora import load_corpus
from studies.disturbances import resample_through

pytestmark = pytest.mark.slow

TRIM_DB = 30.0
LENGTHS = [[16000], [880], [5000, 24017, 1200], [64000, 881, 30000, 30001, 16079]]
# Runs a script in a process in which torch and transformers cannot be imported.
WITHOUT_TORCH = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
sys.path.insert(0, ".")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Exported:
    """A model, its feature extractor, and the ONNX file made of both."""

    def __init__(self, model, extractor, path):
        self.model, self.extractor, self.path = model, extractor, path
        self.session = open_session(path)

    def pytorch(self, waveform):
        with torch.no_grad():
            return self.model(**self.extractor(waveform, sampling_rate=16000, return_tensors="pt", is_trimmed=True))


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """The mini model, exported from another folder; model.int8.onnx lies beside it."""
    folder = tmp_path_factory.mktemp("mini")
    run = run_anew("export_onnx.py", "--model", "mini", "--int8", cwd=folder)
    written = [line.split()[0] for line in run.stdout.splitlines() if "of PyTorch's" in line]
    assert written == ["model.onnx:", "model.int8.onnx:"]
    model, extractor = load_model(str(MINI_MODEL))
    assert extractor.trim_db == TRIM_DB
    return Exported(model, extractor, folder / "model.onnx")


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory):
    """A tiny random one whose first convolution is normalised over time, saved and exported by the script's main."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    # Louder than fresh weights, so that a difference in the input is seen in the scores.
    model = tiny_model("wav2vec2-group", temperature=0.1)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    path = folder / "new" / "tiny.onnx"
    export_onnx.main(["--model", str(folder), "--output", str(path)])
    return Exported(model, extractor, path)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A tiny random Whisper of 10 s; tiny.int8.onnx lies beside it."""
    settings = {**TINY_ENCODERS["whisper"], "num_mel_bins": 80, "max_source_positions": 500}
    torch.manual_seed(0)
    model = SERAlignForAudioClassification(SERAlignConfig(encoder_config=settings, calibration_temperature=0.1)).eval()
    path = tmp_path_factory.mktemp("whisper") / "tiny.onnx"
    extractor = model.config.build_feature_extractor()
    assert onnx_export.export(model, extractor, path) <= 1e-4
    onnx_int8.quantize(path, path.with_suffix(".int8.onnx"))
    return Exported(model, extractor, path)


@pytest.fixture(params=["mini", "wav2vec2", "whisper"])
def exported(request):
    return request.getfixturevalue(request.param)


# ------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_a_padded_batch_gives_the_scores_of_pytorch_for_each_utterance_alone(exported, lengths):
    waveforms = voices(lengths)
    batch = pad_utterances(waveforms)
    batch["waveform"][batch["attention_mask"] == 0] = 7.0  # what stands in the padding must not matter
    found = dict(zip(OUTPUTS, exported.session.run(OUTPUTS, batch)))
    for index, waveform in enumerate(waveforms):
        expected = exported.pytorch(waveform)
        frames = expected.frame_logits.shape[1]
        mask = found["frame_mask"][index]
        assert mask.dtype == bool and mask[:frames].all() and not mask[frames:].any()
        np.testing.assert_allclose(found["logits"][index], expected.logits[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(found["frame_logits"][index, :frames], expected.frame_logits[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(found["frame_weights"][index, :frames], expected.frame_weights[0], rtol=0, atol=1e-4)
        assert not found["frame_weights"][index, frames:].any()


@pytest.mark.parametrize("pooling", ["attentive", "self_attention", "mean", "max", "flam", "style"])
def test_every_other_pooling_is_exported_and_what_only_training_needs_is_not(pooling, tmp_path):
    model = tiny_model("wav2vec2-layer", pooling=pooling, center_weight=0.1)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    assert onnx_export.export(model, extractor, tmp_path / "tiny.onnx") <= 1e-5
    names = {weight.name for weight in onnx.load(tmp_path / "tiny.onnx").graph.initializer}
    assert any("classifier" in name for name in names) and not any("objective" in name for name in names)


def test_dimensions_are_exported_on_their_scales_and_calibrated(tmp_path):
    scales = {"dimension_names": ["valence", "arousal"], "dimension_scales": [[1.0, 5.0], [1.0, 7.0]]}
    model = tiny_model("wav2vec2-layer", pooling="style", pooling_num_heads=2, region_weight=1.0, **scales)
    model.config.dimension_calibration = [[1.5, -0.2, 0.5], [0.7, 1.0, 0.4]]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    path = tmp_path / "tiny.onnx"
    assert onnx_export.export(model, extractor, path) <= 1e-5
    (waveform,) = voices([16000])
    (found,) = open_session(path).run(["dimensions"], pad_utterances([waveform]))
    with torch.no_grad():
        expected = model(**extractor(waveform, sampling_rate=16000, return_tensors="pt")).dimensions
    np.testing.assert_allclose(found, expected, atol=1e-4)
    notes = {note.key: json.loads(note.value) for note in onnx.load(path).metadata_props}
    assert notes["dimensions"] == ["valence", "arousal"] and notes["dimension_errors"] == [0.5, 0.4]
    assert notes["dimension_scales"] == [[1, 5], [1, 7]] and notes["dimension_source"] == "rated"
    names = {weight.name for weight in onnx.load(path).graph.initializer}
    assert not any("objective" in name for name in names)


@pytest.mark.slow
def test_real_speech_gets_the_scores_of_pytorch(mini, corpora):
    rows = load_corpus("ravdess", str(corpora / "ravdess"))
    for row in rows.select(range(0, 1440, 1440 // 50)).select(range(50)):
        waveform = read_audio(row["audio"]["path"], TRIM_DB)
        (logits,) = mini.session.run(["logits"], pad_utterances([waveform]))
        np.testing.assert_allclose(logits[0], mini.pytorch(waveform).logits[0], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_8_bits_keep_the_ua_on_unseen_actors(mini, corpora):
    stored = {line["id"]: line for line in lines_of(MINI_MODEL / "predictions.jsonl") if line["split"] == "test"}
    rows = load_corpus("ravdess", str(corpora / "ravdess")).filter(lambda name: name in stored, input_columns="id")
    assert len(rows) == 120
    waveforms = [read_audio(row["audio"]["path"], TRIM_DB) for row in rows]
    int8 = open_session(mini.path.with_suffix(".int8.onnx"))
    logits = {
        name: np.concatenate([session.run(["logits"], pad_utterances([waveform]))[0] for waveform in waveforms])
        for name, session in (("fp32", mini.session), ("int8", int8))
    }
    assert 1e-4 < np.abs(logits["int8"] - logits["fp32"]).max() < 0.1
    ua = {name: balanced_accuracy_score(rows["label"], values.argmax(axis=1)) for name, values in logits.items()}
    labels = list(mini.model.config.label2id)
    of_pytorch = balanced_accuracy_score(
        rows["label"], [labels.index(stored[name]["prediction"]) for name in rows["id"]]
    )
    assert ua["fp32"] == pytest.approx(of_pytorch, abs=1e-6)
    assert ua["int8"] == pytest.approx(ua["fp32"], abs=0.005)


def test_a_long_silence_costs_no_digits(exported):
    """Sums over time that ONNX Runtime takes in float32 are off by several times as much."""
    assert onnx_export.measure_difference(exported.path, exported.model, exported.extractor) < 1e-5


def test_whisper_of_8_bits_stays_close_and_computes_log_mel_frames_in_32(whisper):
    path = whisper.path.with_suffix(".int8.onnx")
    assert 1e-5 < onnx_export.measure_difference(path, whisper.model, whisper.extractor) < 0.3
    nodes = {node.name: node.op_type for node in onnx.load(path).graph.node}
    quantized = [name for name, kind in nodes.items() if kind == "MatMulInteger"]
    assert len(quantized) > 12 and not [name for name in quantized if name.startswith("front_end/")]


# ----------------------------------------------------------------------------------------- the files


def test_the_metadata_says_what_a_reader_needs(exported):
    found = {name: json.loads(text) for name, text in exported.session.get_modelmeta().custom_metadata_map.items()}
    config = exported.model.config
    assert found == {
        "labels": list(config.label2id),
        "bandwidth": config.bandwidth,
        "unsure_below": config.unsure_below,
        "licence": "cc-by-nc-sa-4.0" if exported.path.name == "model.onnx" else None,  # that of the mini model's card
        "sampling_rate": 16000,
        "shortest_samples": {"wav2vec2-bert": 880, "wav2vec2": 400, "whisper": 160}[config.encoder_config.model_type],
        "longest_seconds": 10.0 if config.encoder_config.model_type == "whisper" else None,
        "trim_db": TRIM_DB if config.encoder_config.model_type == "wav2vec2-bert" else None,
        "frame_seconds": 0.04 if config.encoder_config.model_type == "wav2vec2-bert" else 0.02,
    }


def test_one_file_of_the_opset_that_names_no_place_of_this_machine(exported):
    model = onnx.load(exported.path)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 20
    assert str(ROOT).encode() not in exported.path.read_bytes() and b".py" not in exported.path.read_bytes()
    assert {path.suffix for path in exported.path.parent.iterdir()} == {".onnx"}


def test_8_bits_where_they_do_not_hurt(mini):
    path = mini.path.with_suffix(".int8.onnx")
    assert path.stat().st_size < 0.7 * mini.path.stat().st_size
    nodes = {node.name: node.op_type for node in onnx.load(path).graph.node}
    quantized = {name for name, kind in nodes.items() if kind == "MatMulInteger"}
    assert len(quantized) == 31
    assert not [name for name in quantized if any(part in name for part in onnx_int8.KEPT_IN_FLOAT)]
    assert nodes["front_end.measure.spectrum/node_matmul"] == "MatMul"


def test_a_file_that_differs_from_pytorch_is_not_left(mini, tmp_path, monkeypatch):
    wrong = onnx.load(mini.path)
    bias = next(value for value in wrong.graph.initializer if value.name == "model.classifier.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(2e-4), bias.name))
    monkeypatch.setattr(onnx_export, "_trace", lambda *_: wrong)
    with pytest.raises(InputError, match=r"differ from PyTorch's by .*, so .*model.onnx was not written"):
        onnx_export.export(mini.model, mini.extractor, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_comparison_sees_what_the_script_prints(mini):
    found = onnx_export.measure_difference(mini.path.with_suffix(".int8.onnx"), mini.model, mini.extractor)
    assert 1e-4 < found < 0.1
    assert min(map(len, generate_audio(880))) == 880


# --------------------------------------------------------------------------------------- the example


@pytest.fixture
def recording(tmp_path):
    """Stereo, 44.1 kHz, half a second of silence before and after."""
    (noise,) = voices([44100])
    samples = np.pad(0.3 * noise / np.abs(noise).max(), 22050)
    soundfile.write(tmp_path / "recording.wav", np.stack([samples, 0.5 * samples], axis=1), 44100)
    return tmp_path / "recording.wav"


def run_without_torch(*argv):
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, argv)]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)


def test_the_example_gives_pytorchs_probabilities_without_torch(exported, recording):
    run = run_without_torch("examples/onnx_inference.py", exported.path, recording)
    assert run.returncode == 0, run.stderr
    found = [(label, float(probability)) for label, probability in map(str.split, run.stdout.splitlines())]
    trim_db = getattr(exported.extractor, "trim_db", None)
    waveform = read_audio(recording, trim_db)
    seconds = len(waveform) / 16000
    assert 1 <= seconds < 1.2 if trim_db else seconds == 2  # the silence is cut, or is not
    probabilities = exported.pytorch(waveform).logits[0].softmax(dim=-1).tolist()
    expected = sorted(zip(exported.model.config.label2id, probabilities), key=lambda pair: -pair[1])
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [probability for _, probability in found] == pytest.approx([p for _, p in expected], abs=6e-4)


def test_the_example_warns_of_what_predict_warns_of(mini, tmp_path):
    """A tone, and speech of 8 kHz saved at 16 kHz, for a model that was trained on all of 8 kHz."""
    speech, rate = soundfile.read(ROOT / "examples" / "speech.flac")
    narrow = resample_through(speech.astype(np.float32), 8000)
    tone = 0.3 * np.sin(np.arange(5 * rate) * 2 * np.pi * 440 / rate)
    for name, waveform, said in (
        ("tone.wav", tone, "sounds unlike speech"),
        ("narrow.wav", narrow, "contains no speech above 4 kHz, but the model was trained on speech up to"),
        ("speech.wav", speech, None),
    ):
        soundfile.write(tmp_path / name, waveform, rate)
        run = run_without_torch("examples/onnx_inference.py", mini.path, tmp_path / name)
        assert run.returncode == 0, run.stderr
        labels, *said_before = run.stdout.split("unsure\n")[::-1]
        assert len(labels.splitlines()) == mini.model.config.num_labels
        best = float(labels.split()[1])
        assert bool(said_before) == (best < mini.model.config.unsure_below)
        assert run.stderr.startswith(f"warning: {tmp_path / name} {said}") if said else run.stderr == ""


REFUSED_BY_THE_EXAMPLE = {  # samples of a file, or its bytes, and what is said of it
    "short.wav": (0.1 * np.sin(np.arange(500)), "contains no speech: it is empty or silent"),
    "minute.wav": (0.1 * np.sin(np.arange(61 * 16000)), "lasts 61.000 s; valid are 0.055 to 60 s of one utterance"),
    "silent.wav": (np.zeros(16000), "contains no speech: it is empty or silent"),
    "constant.wav": (np.full(16000, 0.2), "contains no speech: it is empty or silent"),
    "empty.wav": (np.zeros(0), "contains no speech: it is empty or silent"),
    "nan.wav": (np.full(16000, np.nan), "contains samples that are not finite numbers"),
    "text.wav": (b"Dear Sir", "cannot be read"),
    "nothing.wav": (b"", "cannot be read"),
    "missing.wav": (None, "no such audio file"),
}


@pytest.mark.parametrize("name", REFUSED_BY_THE_EXAMPLE)
def test_the_example_says_what_is_wrong_with_a_recording(name, mini, tmp_path, capsys):
    content, message = REFUSED_BY_THE_EXAMPLE[name]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        soundfile.write(tmp_path / name, content, 16000, subtype="FLOAT")
    with pytest.raises(SystemExit) as refusal:
        onnx_inference.main(str(mini.path), str(tmp_path / name))
    text = str(refusal.value)
    assert text.startswith("error: ") and message in text and text.isprintable() and not capsys.readouterr().out


def test_the_example_says_what_is_wrong_with_a_model_or_the_command(tmp_path):
    (tmp_path / "text.onnx").write_text("no model", encoding="utf-8")
    for model in (tmp_path / "text.onnx", tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(SystemExit, match=r"cannot be loaded .*: give a file that export_onnx.py wrote"):
            onnx_inference.main(str(model), "examples/speech.flac")
    assert run_without_torch("examples/onnx_inference.py").stderr.startswith("error: give a model and a recording")


def test_torch_cannot_be_imported_there(tmp_path):
    (tmp_path / "script.py").write_text("import torch\n", encoding="utf-8")
    assert "torch is not installed here" in run_without_torch(tmp_path / "script.py").stderr


def test_the_example_refuses_what_is_longer_than_the_encoder_takes(whisper, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 176000), 16000)
    run = run_without_torch("examples/onnx_inference.py", whisper.path, tmp_path / "long.wav")
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1].endswith("lasts 11.000 s; valid are 0.010 to 10 s of one utterance")


# -------------------------------------------------------------------------------------------- errors


def test_help_and_mistakes_answer_before_the_slow_imports():
    run = run_without_torch("export_onnx.py", "--help")
    assert run.returncode == 0 and "--int8" in run.stdout, run.stderr
    run = run_without_torch("export_onnx.py", "--model", MINI_MODEL, "--output", "model.pt")
    assert (run.returncode, run.stderr) == (1, "error: --output model.pt is not a file name ending in .onnx\n")


def test_a_mistake_is_one_line(tmp_path):
    run = run_script("export_onnx.py", "--model", tmp_path / "nowhere", "--output", tmp_path / "a.onnx", expect=1)
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert run.stderr.startswith(f"error: --model {tmp_path / 'nowhere'} is neither a shipped model")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_named(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"has model_type 'wav2vec2', not 'ser_align': use a model trained with"):
        load_model(str(tmp_path))
    model = tiny_model("wav2vec2-bert")
    with pytest.raises(
        InputError, match="SeamlessM4TFeatureExtractor cannot be exported; only Wav2Vec2FeatureExtractor, SERAlign"
    ):
        WaveformModel(model, SeamlessM4TFeatureExtractor())
    monkeypatch.setattr(onnx_export, "LARGEST_BYTES", 1000)
    with pytest.raises(InputError, match="an ONNX file holds at most 2 GB"):
        onnx_export.export(model, SERAlignFeatureExtractor(stride=2), tmp_path / "model.onnx")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(onnx_options, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"onnxscript, not installed here: pip install -r requirements-onnx\.txt"):
        onnx_options.read_options(["--model", "x"], "")


def test_its_requirements_are_pinned_and_tested():
    lines = (ROOT / "requirements-onnx.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins["onnx"] == onnx.__version__ and pins["onnxruntime"] == onnxruntime.__version__
    assert "-r requirements-onnx.txt" in Path(ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
