"""Shared by all tests: no network, tiny random encoders, and where the corpora are."""

import os
import threading
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # two workers on two cores; and a sum has the same bits in every process
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import soundfile
import torch

from core.librosa_loading import load_librosa
from modeling_ser_align import SERAlignForAudioClassification
from studies.encoders import TINY, TINY_CONV, TINY_ENCODERS, build_tiny_model  # noqa: F401  # for the tests

load_librosa()  # also for the tests that import it themselves

CORPORA = "SER_ALIGN_CORPORA"
LONGEST = (
    *("test_quickstart", "test_train", "test_experiment", "test_export_onnx", "test_predict", "test_consoles"),
    *("test_encoder_table", "test_feature_cache", "test_train_on_corpora", "test_publishing", "test_saving"),
)
ROOT = Path(__file__).parent.parent


def tiny_model(encoder: str = "wav2vec2-group", seed: int = 0, **fields) -> SERAlignForAudioClassification:
    return build_tiny_model(TINY_ENCODERS[encoder], seed, **fields)


def utterances(model: SERAlignForAudioClassification, seconds: list[float], seed: int = 0) -> list[torch.Tensor]:
    """Random inputs of these durations, or of one frame if that is longer: (samples,) or (frames, features)."""
    generator = torch.Generator().manual_seed(seed)
    family, config = model.config.family, model.config.encoder_config
    shortest = family.compute_receptive_field(config)
    lengths = [max(int(s / family.compute_unit_seconds(config)), shortest) for s in seconds]
    width = family.get_input_width(config)
    return [torch.randn(*([n] if width is None else [n, width]), generator=generator) for n in lengths]


def batch(model: SERAlignForAudioClassification, inputs: list[torch.Tensor], padding: float = 0.0) -> dict:
    lengths = torch.tensor([len(x) for x in inputs])
    values = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True, padding_value=padding)
    mask = (torch.arange(values.shape[1]) < lengths[:, None]).long()
    return {model.main_input_name: values, "attention_mask": mask}


def assert_same_encoder(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    """Assert that every weight of the expected encoder is in the other one, bit for bit."""
    expected_state, state = expected.state_dict(), found.state_dict()
    assert state.keys() == expected_state.keys()
    for name, value in expected_state.items():
        assert torch.equal(state[name], value), name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no process is left working alone at the end."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


@pytest.fixture
def corpora() -> Path:
    """Directory of real corpora; tests that need it are skipped with a reason if the variable is not set."""
    directory = os.environ.get(CORPORA)
    if not directory or not Path(directory).is_dir():
        pytest.skip(f"real speech: set {CORPORA} to the directory that holds ravdess/")
    return Path(directory)


def write_wav(path: Path, seconds: float = 0.5, rate: int = 16000, channels: int = 1, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).standard_normal((int(seconds * rate), channels))
    soundfile.write(path, noise, rate)
    return path


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Directory of the demo corpus, generated once."""
    from recipe.corpora import load_corpus

    directory = tmp_path_factory.mktemp("corpus") / "demo"
    load_corpus("demo", str(directory))
    return directory


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory):
    """The folder of an untrained Whisper with two layers of width 32."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    folder = str(tmp_path_factory.mktemp("whisper"))
    torch.manual_seed(0)
    settings = {name: value for name, value in TINY_ENCODERS["whisper"].items() if name != "model_type"}
    WhisperModel(WhisperConfig(**settings)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """The folder of an untrained BERT with two layers of width 32, and a tokenizer of a few words and all letters."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "kids", "dogs", "door", "sad", "great", "news", *letters]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"##{letter}" for letter in letters)]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=100, max_position_embeddings=16, **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def hub():
    """An empty Hub on the loopback interface."""
    from loopback import Hub

    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


HOSTILE_LABELS = ("<img src=x onerror=alert(1)>|\x1b[31m", "=cmd|' /C calc'!A0", "$x_{$")


@pytest.fixture(scope="session")
def hostile_csv(tmp_path_factory):
    """A CSV of 27 short recordings whose labels and speakers contain markup, formulas and control characters."""
    folder = tmp_path_factory.mktemp("hostile")
    lines = ["path,label,speaker"]
    for index in range(27):
        write_wav(folder / f"{index}.wav", 0.3, seed=index)
        lines.append(f'{index}.wav,"{HOSTILE_LABELS[index % 3]}","<b>|speaker {index // 3}\x1b[31m"')
    (folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "list.csv"


@pytest.fixture(scope="session")
def short_run(demo, tmp_path_factory):
    """Output folder and terminal output of a run with both stages, trained for a few updates each."""
    from running import SHORT, train

    output = tmp_path_factory.mktemp("short")
    return output, train(*SHORT, "--data_dir", demo, "--output_dir", output)


@pytest.fixture(scope="session")
def recognize():
    """The pipeline of the mini model."""
    from core.loading import load_pipeline

    return load_pipeline(str(ROOT / "models" / "ser-align-mini"), device="cpu")
