"""Static 8 bits: what is quantized and over which ranges, scores beside those of 32 bits, and the size of a file."""

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from conftest import ROOT
from onnx import numpy_helper
from sounds import voices

import export_onnx
from core.audio import read_audio
from core.errors import InputError
from core.json_files import read_json, read_lines
from core.loading import load_model
from core.shipped import MINI_MODEL
from feature_extraction_ser_align import mel_filters
from inference.onnx_export import OUTPUTS, export, pad_utterances, silence_exporter
from inference.onnx_front_ends import MelSpectrum
from inference.onnx_int8 import quantize_statically, read_calibration
from inference.onnx_options import read_options
from modeling_ser_align import SERAlignForAudioClassification
from recipe.arguments import parse_arguments
from recipe.stages import build_config
from whisper_features_ser_align import whisper_mel_filters

pytestmark = pytest.mark.slow

PRODUCTS = ("MatMul", "Gemm", "Conv")
LABELS = ("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder of speech: the example, its halves, and one far longer than an utterance."""
    folder = tmp_path_factory.mktemp("calibration")
    speech, rate = soundfile.read(ROOT / "examples" / "speech.flac")
    (folder / "deeper").mkdir()
    parts = {"whole": speech, "deeper/first": speech[:40000], "second": speech[40000:], "long": np.tile(speech, 4)}
    for name, samples in parts.items():
        soundfile.write(folder / f"{name}.wav", samples, rate)
    return folder


@pytest.fixture(scope="module")
def paths(recordings, tmp_path_factory):
    """The mini model of 32 bits and the static one of 8, by the script."""
    path = tmp_path_factory.mktemp("mini") / "model.onnx"
    argv = ["--model", str(MINI_MODEL), "--output", str(path), "--int8", "static", "--calibration", str(recordings)]
    export_onnx.main(argv)
    return path, path.with_suffix(".int8.onnx")


def open_session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def read_scales(model):
    """(scale, zero point) of each quantizer and dequantizer, by the names of its input and output."""
    values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found[node.input[0]] = found[node.output[0]] = (values[node.input[1]], values[node.input[2]])
    return found, values


# ----------------------------------------------------------------------------------------- the files


def test_weights_and_activations_of_every_product_have_8_bits_and_log_mel_frames_have_32(paths):
    model = onnx.load(paths[1])
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    _, values = read_scales(model)
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    quantized = [node for node in products if not node.name.startswith("front_end")]
    assert len(products) == len(quantized) + 3 and len(quantized) > 40
    for node in quantized:
        assert all(made_by[name] == "DequantizeLinear" for name in node.input if name), node.name
    for node in products:
        if node.name.startswith("front_end"):
            assert not any(made_by.get(name) == "DequantizeLinear" for name in node.input), node.name
    weights = [each for name, each in values.items() if name.endswith("_quantized") and each.ndim > 1]
    assert len(weights) > 30 and {each.dtype for each in weights} == {np.dtype(np.uint8)}
    assert paths[1].stat().st_size < 0.45 * paths[0].stat().st_size


def test_weights_are_rounded_and_the_ranges_are_those_of_the_calibration(paths, recordings):
    """The weights of 32 bits within half a step, and the features of PyTorch's extractor as the first range."""
    exact, model = onnx.load(paths[0]), onnx.load(paths[1])
    scales, values = read_scales(model)
    originals = {each.name: numpy_helper.to_array(each) for each in exact.graph.initializer}
    compared = 0
    for name, original in originals.items():
        if f"{name}_quantized" in values and original.ndim > 1:
            scale, zero = scales[f"{name}_quantized"]
            restored = (values[f"{name}_quantized"].astype(np.float64) - zero) * scale
            assert np.abs(restored - original).max() <= 0.51 * scale, name
            compared += 1
    assert compared > 30
    first = next(node for node in exact.graph.node if "feature_projection.projection" in node.name)
    scale, zero = scales[first.input[0]]
    extractor = load_model(str(MINI_MODEL))[1]
    utterances = read_calibration(str(recordings), extractor.trim_db, 880)
    assert max(map(len, utterances)) == 15 * 16000  # of the long one, as much as an utterance lasts
    features = [extractor(each, is_trimmed=True, return_tensors="np")["input_features"] for each in utterances]
    lowest, highest = min(each.min() for each in features), max(each.max() for each in features)
    assert float(scale) == pytest.approx((highest - lowest) / 255, rel=1e-3)
    assert int(zero) == pytest.approx(-lowest / scale, abs=1)


# ------------------------------------------------------------------------------------------ scores


def test_padding_does_not_change_the_scores(paths):
    """Ranges are fixed, unlike those of dynamic quantization; what is left is the order of sums."""
    session = open_session(paths[1])
    waveforms = voices([64000, 881, 30000, 16079])
    together = dict(zip(OUTPUTS, session.run(OUTPUTS, pad_utterances(waveforms))))
    for index, waveform in enumerate(waveforms):
        alone = dict(zip(OUTPUTS, session.run(OUTPUTS, pad_utterances([waveform]))))
        frames = alone["frame_logits"].shape[1]
        assert together["frame_mask"][index].sum() == frames
        # One step of one activation may differ where a sum falls between two.
        np.testing.assert_allclose(together["logits"][index], alone["logits"][0], atol=0.02)


def test_8_bits_keep_the_labels_of_unseen_actors(paths, corpora, tmp_path):
    """Calibrated on training actors: UA of the test actors within a point of that of 32 bits."""
    results = read_json(MINI_MODEL / "results.json")
    lines = {
        line["id"]: line["label"] for line in read_lines(MINI_MODEL / "predictions.jsonl") if line["split"] == "test"
    }
    files = {path.stem: path for path in (corpora / "ravdess").rglob("*.flac")}
    trained = sorted(name for name in files if name[-2:] in results["speakers"]["train"])[::8]
    trim_db = results["arguments"]["trim_db"]
    path = tmp_path / "static.onnx"
    with silence_exporter():
        quantize_statically(paths[0], path, [read_audio(files[name], trim_db) for name in trained])
    batches = [pad_utterances([read_audio(files[name], trim_db)]) for name in lines]
    exact, found = (
        np.concatenate([session.run(["logits"], batch)[0] for batch in batches])
        for session in map(open_session, (paths[0], path))
    )
    assert 1e-4 < np.abs(found - exact).max() < 0.5 and len(batches) == 120
    labels = np.array([list(results["class_counts"]["test"]).index(label) for label in lines.values()])
    recalls = [
        [(logits.argmax(axis=1)[labels == label] == label).mean() for label in range(8)] for logits in (exact, found)
    ]
    assert np.mean(recalls[1]) == pytest.approx(np.mean(recalls[0]), abs=0.01)


@pytest.mark.parametrize(
    ("window", "size", "filters"), [(400, 512, mel_filters(80, 16000)), (400, 400, whisper_mel_filters(80, 16000))]
)
def test_the_halved_transform_is_that_of_numpy(window, size, filters):
    windows = np.random.default_rng(0).standard_normal((3, 5, window))
    expected = np.abs(np.fft.rfft(windows, size)) ** 2 @ filters.double().numpy()
    spectrum = MelSpectrum(window, size, filters)
    np.testing.assert_allclose(spectrum(torch.from_numpy(windows).float()), expected, rtol=2e-5)
    assert spectrum.fourier.numel() * 4 < 1.01 * window * (size + 2)


# ------------------------------------------------------------------------------------------ the edge


def test_the_edge_model_fits_its_budget(tmp_path):
    """The whole file of 8 bits of run_configs/edge/audio.yaml, without training: 1.8 MB."""
    stages = parse_arguments(["--config", str(ROOT / "run_configs" / "edge" / "audio.yaml")], "")
    config = build_config(2, stages[2], stages[1])
    config.id2label = dict(enumerate(LABELS))
    torch.manual_seed(0)
    model = SERAlignForAudioClassification(config).eval()
    exact, static = tmp_path / "edge.onnx", tmp_path / "edge.int8.onnx"
    with silence_exporter():
        export(model, config.build_feature_extractor(), exact)
        quantize_statically(exact, static, voices([32000, 16000, 8000]))
    assert static.stat().st_size <= 1.8e6 < exact.stat().st_size
    print(f"{model.num_parameters()} parameters, {static.stat().st_size} bytes of 8 bits, {exact.stat().st_size} of 32")
    (logits,) = open_session(static).run(["logits"], pad_utterances(voices([16000])))
    assert logits.shape == (1, len(LABELS)) and np.isfinite(logits).all()


# ---------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--int8", "static"], "--int8 static needs --calibration FOLDER: recordings like those of the training data"),
        (["--int8", "--calibration", "docs"], "--calibration docs needs --int8 static"),
        (["--calibration", "docs"], "--calibration docs needs --int8 static"),
        (["--int8", "static", "--calibration", "nowhere"], "--calibration nowhere is not a folder of recordings"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(argv, message):
    with pytest.raises(InputError) as refusal:
        read_options(["--model", "mini", *argv], "")
    assert str(refusal.value) == message


def test_8_bits_are_dynamic_unless_static_ones_are_asked_for():
    assert [read_options(["--model", "mini", *argv], "").int8 for argv in ([], ["--int8"])] == [None, "dynamic"]


def test_what_cannot_calibrate_is_named(tmp_path):
    with pytest.raises(InputError, match="contains no audio files; valid suffixes are"):
        read_calibration(str(tmp_path), 30.0, 880)
    soundfile.write(tmp_path / "short.wav", 0.1 * np.sin(np.arange(500)), 16000)
    with pytest.raises(
        InputError, match=r"short.wav lasts 0.031 s, but the model takes no less than 0.055 s: remove it"
    ):
        read_calibration(str(tmp_path), 30.0, 880)
