"""Acoustic features of a whole utterance: openSMILE's functionals, or statistics of a frozen encoder's layers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, SequenceFeatureExtractor

from core.errors import InputError
from core.hashing import hash_frozen_part
from core.loading import make_feature_extractor
from core.model_files import LOAD_ERRORS, explain_failure
from encoders_ser_align import read_pretrained_config
from modeling_ser_align import SERAlignForAudioClassification
from recording_ser_align import SAMPLING_RATE

REQUIREMENTS = "requirements-opensmile.txt"
OPENSMILE_LICENCE = (
    "openSMILE has audEERING's research licence: for research, teaching and personal use; a product may use neither it "
    "nor models of its features without audEERING's commercial licence"
)
SHORTEST_SECONDS = 0.1  # the shortest phrase of a timeline; openSMILE needs 0.06
# The name of each openSMILE feature set here, and in openSMILE.
FEATURE_SETS = {"egemaps": "eGeMAPSv02", "compare": "ComParE_2016"}


class AcousticFeatures(Protocol):
    """What computes the features of an utterance.

    Attributes:
        settings: all that says how, for `build_features`; JSON types.
        digest: of all that `describe` depends on.
    """

    settings: dict[str, Any]
    digest: str

    def describe(self, waveform: np.ndarray) -> np.ndarray:
        """Compute what is cached, (values,) float32, of a waveform (samples,) at 16 kHz. Raises InputError."""
        ...

    def select(self, described: np.ndarray) -> np.ndarray:
        """The features, (..., features), among what `describe` returns, (..., values)."""
        ...


class OpenSmileFeatures:
    """Functionals of openSMILE: 88 of eGeMAPSv02 (Eyben et al. 2016), or 6,373 of ComParE 2016 (Schuller et al. 2016).

    Args:
        features: egemaps or compare.

    Raises:
        InputError: openSMILE is not installed.
    """

    def __init__(self, features: str):
        check_opensmile(features)
        import opensmile  # takes a second

        self.settings = {"features": features, "opensmile": version("opensmile")}
        self.digest = json.dumps(self.settings)
        feature_set = opensmile.FeatureSet[FEATURE_SETS[features]]
        self.smile = opensmile.Smile(feature_set, opensmile.FeatureLevel.Functionals)

    def describe(self, waveform: np.ndarray) -> np.ndarray:
        """As in `AcousticFeatures`."""
        seconds = len(waveform) / SAMPLING_RATE
        if seconds < SHORTEST_SECONDS:  # the library would warn, and give NaN for what is much shorter
            raise InputError(f"it lasts {seconds:.3f} s; openSMILE needs at least {SHORTEST_SECONDS:g} s of speech")
        return _check_finite(self.smile.process_signal(waveform, SAMPLING_RATE).to_numpy(np.float32)[0].copy())

    def select(self, described: np.ndarray) -> np.ndarray:
        """All of them."""
        return described


class EncoderFeatures:
    """Mean and standard deviation over time of the output of a frozen encoder's layers.

    An utterance is encoded alone, without padding. One that is longer than the encoder takes is cut to its middle.

    Args:
        encoder: name on the Hub, or folder.
        encoder_config: settings that replace its own.
        first_layer, last_layer: range of the layers, counted from 1; 0 is the input of the first one. None is the last.
        device: where to run it.

    Raises:
        InputError: there is no such encoder or layer.
    """

    def __init__(
        self,
        encoder: str,
        encoder_config: dict[str, Any],
        first_layer: int,
        last_layer: int | None = None,
        device: str | torch.device = "cpu",
    ):
        config = read_encoder_config(encoder, encoder_config)
        last, number = choose_last_layer(config, encoder, first_layer, last_layer), config.num_hidden_layers
        with name_refusals(encoder):
            self.model = SERAlignForAudioClassification.from_pretrained_encoder(
                encoder,
                encoder_config=encoder_config,
                pooling="mean",
                eal_weight=0.0,
                fual_weight=0.0,
                freeze_encoder_layers=number,
                statistics_layers=number,  # so that the output of every layer is returned
            )
        self.model.eval().to(device)  # type: ignore[arg-type]
        self.extractor = make_feature_extractor(self.model.config, encoder, None)
        self.layers = slice(first_layer, last + 1)
        self.settings = {
            "features": "encoder",
            "encoder": encoder,
            "encoder_config": encoder_config,
            "first_layer": first_layer,
            "last_layer": last,
            "encoder_digest": hash_frozen_part(self.model),
        }
        self.digest = json.dumps([self.settings["encoder_digest"], self.extractor.to_json_string()])

    def describe(self, waveform: np.ndarray) -> np.ndarray:
        """As in `AcousticFeatures`: the means of every layer, one after the other, then the standard deviations.

        Whatever layers are selected, those of an utterance are thus computed and cached once.
        """
        shortest, longest = self.model.config.shortest_samples, self.model.config.longest_seconds
        if len(waveform) < shortest:
            raise InputError(
                f"it lasts {len(waveform) / SAMPLING_RATE:.4f} s; one frame of the encoder needs at least "
                f"{shortest / SAMPLING_RATE:.4f} s"
            )
        if longest is not None and len(waveform) > longest * SAMPLING_RATE:
            start = (len(waveform) - int(longest * SAMPLING_RATE)) // 2
            waveform = waveform[start : start + int(longest * SAMPLING_RATE)]
        inputs = extract_inputs(self.extractor, waveform)[None].to(self.model.device)
        states = self.model.extract_features(inputs)[0].float()  # (frames, (layers + 1) * hidden)
        statistics = torch.cat([states.mean(dim=0), states.std(dim=0, correction=0)])
        return _check_finite(statistics.cpu().numpy())

    def select(self, described: np.ndarray) -> np.ndarray:
        """The means of the selected layers, then their standard deviations."""
        sizes = (2, -1, self.model.config.encoder_config.hidden_size)
        by_layer = described.reshape(*described.shape[:-1], *sizes)[..., self.layers, :]
        return by_layer.reshape(*described.shape[:-1], -1)


def build_features(settings: dict[str, Any], device: str | torch.device = "cpu") -> AcousticFeatures:
    """The features with these settings, which may lack a version or a digest. Raises InputError."""
    if settings["features"] != "encoder":
        return OpenSmileFeatures(settings["features"])
    names = ("encoder", "encoder_config", "first_layer", "last_layer")
    return EncoderFeatures(**{name: settings[name] for name in names}, device=device)


def check_opensmile(features: str) -> None:
    """Raise InputError if openSMILE is not installed."""
    if find_spec("opensmile") is None:
        raise InputError(
            f"the features {features} need openSMILE, which is not installed: pip install -r {REQUIREMENTS} "
            f"({OPENSMILE_LICENCE}), or take --features encoder"
        )


def read_encoder_config(encoder: str, encoder_config: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of an encoder, without its weights. Raises InputError."""
    with name_refusals(encoder):
        settings, _ = PreTrainedConfig.get_config_dict(encoder)
        return read_pretrained_config(encoder, settings, encoder_config)


def choose_last_layer(config: PreTrainedConfig, encoder: str, first_layer: int, last_layer: int | None) -> int:
    """The last layer of a range. Raises InputError if the encoder has no such layers."""
    number = config.num_hidden_layers
    last = number if last_layer is None else last_layer
    if not first_layer <= last <= number or last == 0:
        raise InputError(
            f"--first_layer {first_layer} and --last_layer {last} are no range of layers of {encoder}: it has {number}"
        )
    return last


@contextmanager
def name_refusals(encoder: str) -> Iterator[None]:
    """Turn an error of the libraries while this block loads an encoder into a one-line InputError."""
    try:
        yield
    except InputError:
        raise
    except LOAD_ERRORS as error:
        reason = explain_failure(encoder, error) or f"cannot be loaded: {' '.join(str(error).split())}"
        raise InputError(f"--encoder {encoder} {reason}") from error


def extract_inputs(feature_extractor: SequenceFeatureExtractor, waveform: np.ndarray) -> Tensor:
    """Normalise a waveform or extract its log-mel frames: (samples,) to (samples,) or (frames, features)."""
    extractor: Any = feature_extractor
    extracted = extractor(waveform, sampling_rate=SAMPLING_RATE, return_attention_mask=True, is_trimmed=True)
    values = np.asarray(extracted[extractor.model_input_names[0]][0], dtype=np.float32)
    valid = int(np.asarray(extracted["attention_mask"][0]).sum())
    return torch.from_numpy(values[:valid])


def _check_finite(features: np.ndarray) -> np.ndarray:
    if not np.isfinite(features).all():
        raise InputError("its features are not finite: record it again or remove it")
    return features
