"""A classical model: a scikit-learn pipeline on acoustic features, in a folder of its own.

The folder has the settings in config.json and the fitted pipeline in classifier.skops, which holds data alone: a file
that names a type which no model of baseline.py has is refused before anything in it is built.
"""

import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn
from transformers import PreTrainedConfig

from core.acoustic import AcousticFeatures, build_features
from core.errors import InputError, warn, writing
from core.json_files import read_json, write_json
from core.loading import check_device
from core.model_files import AGAIN, CLASSICAL, CONFIG
from core.multiblock import Embedder, MultiblockPLS
from pipeline_ser_align import SpeechEmotionRecognitionPipeline

REQUIREMENTS = "requirements-baseline.txt"
FILE = "classifier.skops"
SETTINGS = ("features", "trim_db", "labels", "calibration_temperature", "unsure_below")  # that a model needs
CLASSIFIERS = (LogisticRegression, LinearSVC, MLPClassifier)
EMBEDDING = (Embedder, MultiblockPLS)
OURS = [f"{each.__module__}.{each.__qualname__}" for each in EMBEDDING]  # that skops does not know, and arrays alone


@dataclass
class ClassicalModel:
    """A fitted pipeline and what its scores mean.

    Args:
        classifier: a `StandardScaler`, any of `EMBEDDING`, and one of `CLASSIFIERS` whose classes are indices of the
            labels.
        settings: `features` (as `AcousticFeatures.settings`), `trim_db`, `labels`, `calibration_temperature`,
            `unsure_below`, and what describes the model.
    """

    classifier: Pipeline
    settings: dict[str, Any]

    def score(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (utterances, classes) of features (utterances, features)."""
        return softmax(compute_logits(self.classifier, features) / self.settings["calibration_temperature"], axis=1)

    def save(self, folder: Path) -> None:
        """Write both files. Raises InputError if they cannot be written or skops is not installed."""
        import_skops().dump(self.classifier, folder / f"{FILE}.unfinished")
        with writing(folder / FILE):
            (folder / f"{FILE}.unfinished").replace(folder / FILE)
        write_json(folder / CONFIG, {"model_type": CLASSICAL, **self.settings})


def compute_logits(classifier: Pipeline, features: np.ndarray) -> np.ndarray:
    """Scores before the softmax, (utterances, classes): of an SVM, the margins to the planes of one class against all.

    Args:
        features: (utterances, features).
    """
    features = features.astype(np.float64)
    if isinstance(classifier[-1], MLPClassifier):
        return classifier.predict_log_proba(features)
    logits = classifier.decision_function(features)
    return logits if logits.ndim == 2 else np.stack([-logits / 2, logits / 2], axis=1)  # of two classes, a difference


def load_classical(folder: str) -> ClassicalModel:
    """Load the folder of a classical model.

    Raises:
        InputError: a file is missing, damaged, or holds something else than such a model; or skops is not installed.
    """
    settings, path = read_json(Path(folder) / CONFIG), Path(folder) / FILE
    if missing := [name for name in SETTINGS if name not in settings]:
        raise InputError(f"--model {folder}: {CONFIG} lacks {', '.join(missing)}: {AGAIN}")
    if not path.is_file():
        raise InputError(f"--model {folder} contains no {FILE}: {AGAIN}")
    skops = import_skops()
    try:
        unknown = [name for name in skops.get_untrusted_types(file=path) if name not in OURS]
        classifier = None if unknown else skops.load(path, trusted=OURS)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError, AttributeError, ImportError) as error:
        raise InputError(f"--model {folder}: {FILE} is damaged ({' '.join(str(error).split())}): {AGAIN}") from None
    if unknown:
        raise InputError(
            f"--model {folder}: {FILE} contains {', '.join(unknown[:3])}, which no model of baseline.py has, so it was "
            "not loaded: take it only from someone you trust, or train it again"
        )
    if not _is_ours(classifier, len(settings["labels"])):
        raise InputError(f"--model {folder}: {FILE} is no classifier of {len(settings['labels'])} labels: {AGAIN}")
    return ClassicalModel(classifier, settings)


def _is_ours(classifier: Any, num_labels: int) -> bool:
    return (
        isinstance(classifier, Pipeline)
        and isinstance(classifier[0], StandardScaler)
        and all(isinstance(step, EMBEDDING) for step in classifier[1:-1])
        and isinstance(classifier[-1], CLASSIFIERS)
        and classifier[-1].classes_.tolist() == list(range(num_labels))
    )


def import_skops() -> Any:
    """The module that reads and writes pipelines. Raises InputError if it is not installed."""
    if find_spec("skops") is None:
        raise InputError(f"a classical model needs skops, which is not installed: pip install -r {REQUIREMENTS}")
    import skops.io

    return skops.io


# ------------------------------------------------------------------------------------------- recordings


class ClassicalNetwork(nn.Module):
    """What a pipeline of transformers asks of a model, for a classical one."""

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        self.device = torch.device("cpu")
        self.config: Any = PreTrainedConfig(id2label=dict(enumerate(settings["labels"])))
        self.config.unsure_below = settings["unsure_below"]
        for absent in ("longest_seconds", "mixed_above", "bandwidth", "dimension_names"):
            setattr(self.config, absent, None)
        self.config.takes_log_mel = True  # its features are computed one by one, whatever the batch


class ClassicalPipeline(SpeechEmotionRecognitionPipeline):
    """Scores recordings and computes their timelines: each phrase or window is scored as an utterance."""

    def __init__(self, model: ClassicalModel, features: AcousticFeatures, batch_size: int | None = None):
        network = ClassicalNetwork(model.settings)
        super().__init__(model=network, device=network.device, batch_size=batch_size)
        self.classical, self.features = model, features

    @property
    def trim_db(self) -> float | None:
        """As in `SpeechEmotionRecognitionPipeline`."""
        return self.classical.settings["trim_db"]

    def extract_features(self, waveform: np.ndarray, *_: Any) -> dict[str, torch.Tensor]:
        """The acoustic features of one waveform (samples,)."""
        described = self.features.select(self.features.describe(waveform))
        return {"features": torch.from_numpy(described), "attention_mask": torch.ones(1)}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {"probabilities": torch.from_numpy(self.classical.score(model_inputs["features"].numpy()))}


def load_classical_pipeline(
    folder: str, device: str | torch.device | None = None, batch_size: int | None = None
) -> ClassicalPipeline:
    """Load the pipeline of a classical model. Raises InputError, also if its encoder is no longer the same."""
    check_device(device)
    model = load_classical(folder)
    stored = model.settings["features"]
    features = build_features(stored, device or "cpu")
    if features.settings.get("encoder_digest") != stored.get("encoder_digest"):
        raise InputError(
            f"--model {folder} was fitted to another encoder than {stored['encoder']} is now: put that one back, or "
            "train the model again"
        )
    if features.settings.get("opensmile") != stored.get("opensmile"):
        warn(f"{folder} was fitted with openSMILE {stored['opensmile']}, not {features.settings['opensmile']}")
    return ClassicalPipeline(model, features, batch_size)
