"""Configuration of SER-Align: the encoder, the pooling and the alignment losses.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

import difflib
from dataclasses import fields
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig

try:
    from .encoders_ser_align import Family, find_family
    from .fields_ser_align import SAMPLING_RATE, SERAlignFields, check_field, option
    from .losses_ser_align import LOSS_NAMES
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from encoders_ser_align import Family, find_family
    from fields_ser_align import SAMPLING_RATE, SERAlignFields, check_field, option
    from losses_ser_align import LOSS_NAMES

try:
    from transformers.configuration_utils import SubConfigSpec
except ImportError:
    raise ImportError(
        f"this model needs transformers 5.20.0 or newer, and {transformers.__version__} is installed: "
        "pip install --upgrade transformers"
    ) from None

FORMER_TEMPERATURE = "temperature"  # name of calibration_temperature in earlier releases


class SERAlignConfig(PreTrainedConfig, SERAlignFields):
    """Configuration of [`SERAlignForAudioClassification`]. Inherits the fields of [`SERAlignFields`].

    Args:
        encoder_config: configuration of the speech encoder, or a dict with a `model_type`. Encoders that take raw
            waveforms: wav2vec2 (used in the paper; the default has the architecture of facebook/wav2vec2-base),
            hubert, wavlm, data2vec-audio, unispeech, unispeech-sat, wav2vec2-conformer. Encoders that take log-mel
            frames: wav2vec2-bert.
        calibration_temperature: divides the utterance and frame logits, so that their softmax is calibrated (Guo et
            al. 2017); train.py fits it on validation data. Ours; 1 leaves the logits unchanged. Earlier releases
            called it `temperature`; their configurations still load.
        trim_db: threshold in dB below the peak, at which leading and trailing audio was trimmed in training; the
            pipeline trims recordings in the same way. Ours; None disables trimming.
        bandwidth: bandwidth in Hz of the speech that the model was trained on, measured by train.py; the pipeline warns
            if a recording has clearly less. Ours; None means unknown, as in earlier releases, and is taken as 8000.

    Raises:
        ValueError: a value is out of range or not one of the choices; the message gives the valid values.
        TypeError: a field is misspelt; the message suggests the closest match.
    """

    model_type = "ser_align"
    sub_configs_defaults = {"encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="wav2vec2")}
    # Keeps frame outputs and losses out of the Trainer's evaluation loop, which would pad and copy them.
    keys_to_ignore_at_inference = [
        "frame_logits",
        "frame_weights",
        "frame_mask",
        "embedding",
        *LOSS_NAMES,
    ]

    encoder_config: dict | PreTrainedConfig | None = None
    calibration_temperature: float = option(
        1.0, "temperature that divides all logits; fitted on validation data", "ours", above=0
    )
    trim_db: float | None = option(
        None, "threshold for trimming silence in training, in dB below the peak", "ours", above=0
    )
    bandwidth: float | None = option(
        None, "bandwidth in Hz of the speech that the model was trained on", "ours", above=0, maximum=SAMPLING_RATE / 2
    )

    def __post_init__(self, **kwargs: Any) -> None:
        if FORMER_TEMPERATURE in kwargs:
            self.calibration_temperature = kwargs.pop(FORMER_TEMPERATURE)
        _refuse_misspelt(kwargs)
        find_family(_read_model_type(self.encoder_config))
        num_labels = kwargs.get("num_labels")
        if self.id2label is not None and num_labels not in (None, len(self.id2label)):
            raise ValueError(f"num_labels={num_labels} does not match id2label, which has {len(self.id2label)} labels")
        super().__post_init__(**kwargs)
        indices = sorted(self.id2label or {})
        if indices != list(range(len(indices))):
            raise ValueError(f"id2label has the indices {indices}; they must be 0 to {len(indices) - 1}")
        # The base class derives id2label from num_labels but never label2id from id2label.
        self.label2id = {str(label): int(index) for index, label in (self.id2label or {}).items()}
        self.validate()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "SERAlignConfig":
        """Same as in transformers, except that a configuration file cannot select code to download and run."""
        for part in (config_dict, config_dict.get("encoder_config")):
            refuse_attention_code(part if isinstance(part, dict) else {})
        return super().from_dict(config_dict, **kwargs)

    def validate(self) -> None:
        """Check every field; also called by the model and before saving. Raises ValueError."""
        super().validate()  # type: ignore[misc]  # added to the base class by a decorator
        for field in fields(self):
            if "help" in field.metadata:  # a field of ours, declared by option()
                check_field(field, getattr(self, field.name))
        self._validate_combinations()

    def _validate_combinations(self) -> None:
        hidden_size = self.encoder_config.hidden_size
        if self.pooling != "attentive" and hidden_size % self.pooling_num_heads:
            raise ValueError(
                f"pooling_num_heads={self.pooling_num_heads} does not divide the encoder's hidden size {hidden_size}"
            )
        if self.cls_in_embedding == "concat" and self.frame_classifier == "shared":
            raise ValueError(
                "cls_in_embedding='concat' doubles the input size of the classifier, so frames cannot share it: "
                "set frame_classifier='separate'"
            )
        if self.pooling == "cls" and self.frame_classifier == "separate" and self.fual_weight == 0:
            raise ValueError("frame_classifier='separate' is trained only by FUAL: set fual_weight above 0")
        if getattr(self.encoder_config, "add_adapter", False):
            raise ValueError("encoder_config.add_adapter=True would downsample the frames again: set it to False")

    @property
    def family(self) -> Family:
        """The adapter for the encoder's family."""
        return find_family(self.encoder_config.model_type)

    @property
    def takes_log_mel(self) -> bool:
        """Whether the encoder takes log-mel frames (`input_features`) instead of a waveform (`input_values`)."""
        return self.family.input_name == "input_features"

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame of the encoder to the next."""
        return self.family.compute_frame_seconds(self.encoder_config)

    @property
    def receptive_field(self) -> int:
        """Length of the shortest utterance that gives one frame, in samples at 16 kHz or stacked log-mel frames."""
        return self.family.compute_receptive_field(self.encoder_config)

    @property
    def shortest_samples(self) -> int:
        """Length of the shortest recording that gives one frame, in samples at 16 kHz."""
        return self.family.compute_shortest_samples(self.encoder_config)


def _read_model_type(encoder_config: dict | PreTrainedConfig | None) -> str:
    if encoder_config is None:
        return "wav2vec2"
    if isinstance(encoder_config, dict):
        return encoder_config.get("model_type", "wav2vec2")
    return encoder_config.model_type


def _refuse_misspelt(unknown: dict[str, Any]) -> None:
    """Raise TypeError for a misspelt field; the base class would silently ignore it and keep the default."""
    ours = [field.name for field in fields(SERAlignConfig) if "help" in field.metadata]
    known = [*ours, "encoder_config", "id2label", "num_labels"]
    for name in set(unknown) - set(known):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        if nearest:
            raise TypeError(f"{name} is not a field of SERAlignConfig; did you mean {nearest[0]}?")


SERAlignConfig.register_for_auto_class()


def refuse_attention_code(config_dict: dict[str, Any]) -> None:
    """Reject an attention implementation named owner/name, which transformers would download and run."""
    for name, value in config_dict.items():
        if "attn_implementation" in name and "/" in str(value):
            raise ValueError(
                f"{name}={value!r} refers to code on the Hub, which is never run: remove it from config.json"
            )
