"""Configuration of SER-Align: which encoder, which pooling, which alignment losses.

Part of the model as it travels on the Hugging Face Hub: imports nothing of the project.
"""

import difflib
import math
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig

try:
    from .encoders_ser_align import Family, find_family
except ImportError:
    if __package__:  # inside a package the relative import must work: do not hide its error
        raise
    from encoders_ser_align import Family, find_family

try:
    from transformers.configuration_utils import SubConfigSpec
except ImportError:
    raise ImportError(
        f"this model needs transformers 5.20.0 or newer, and {transformers.__version__} is installed: "
        "pip install --upgrade transformers"
    ) from None

CHOICES = {
    "pooling": ("attentive", "self_attention", "cls"),
    "pooling_norm": ("post", "pre"),
    "pooling_activation": ("relu", "gelu"),
    "attentive_scorer": ("tanh", "linear"),
    "self_attention_readout": ("attentive", "mean"),
    "frame_similarity": ("dot", "cosine"),
    "cls_in_embedding": ("none", "add", "concat"),
    "frame_classifier": ("shared", "separate"),
    "fual_direction": ("utterance_to_frames", "frames_to_utterance"),
    "fual_gradient": ("both", "frames", "utterance"),
}
POSITIVE_INTEGERS = ("pooling_num_heads", "pooling_num_layers", "pooling_intermediate_size", "attentive_hidden_size")
MAY_BE_NONE = ("pooling_intermediate_size", "attentive_hidden_size", "frame_temperature", "trim_db")
# name: (smallest, largest, whether the smallest itself is allowed, what to say)
RANGES = {
    "pooling_dropout": (0.0, 1.0, True, "a number from 0 to 1"),
    "label_smoothing": (0.0, 1.0, True, "a number from 0 to 1"),
    "cls_init_std": (0.0, math.inf, True, "a number of at least 0"),
    "eal_margin": (-1.0, 2.0, True, "a number from -1 to 2"),
    "eal_weight": (0.0, math.inf, True, "a number of at least 0"),
    "fual_weight": (0.0, math.inf, True, "a number of at least 0"),
    "frame_temperature": (0.0, math.inf, False, "a number above 0, or None"),
    "temperature": (0.0, math.inf, False, "a number above 0"),
    "trim_db": (0.0, math.inf, False, "a number of decibels above 0, or None"),
}


class SERAlignConfig(PreTrainedConfig):
    """Configuration of [`SERAlignForAudioClassification`].

    Source: Byun and Lee, "Frame and Utterance Emotional Alignment for Speech Emotion Recognition",
    Future Internet 2025, 17(11), 509. *Stated* means that the paper says it; *chosen* marks our
    reading where its words leave room.

    Args:
        encoder_config: configuration (or dict with a `model_type`) of the speech encoder. Raw waveform:
            wav2vec2 (stated; the default has the shape of facebook/wav2vec2-base), hubert, wavlm,
            data2vec-audio, unispeech, unispeech-sat, wav2vec2-conformer. Log-mel frames: wav2vec2-bert.
        pooling: `"attentive"` (stage 1, stated), `"self_attention"` (baseline without CLS, stated) or
            `"cls"` (stage 2, stated).
        pooling_num_heads: attention heads of the pooling encoder. Stated: 4.
        pooling_num_layers: depth of the pooling encoder. Stated: 1.
        pooling_dropout: dropout inside the pooling encoder. Stated: none.
        pooling_intermediate_size: feed-forward width of the pooling encoder; None is four times the
            hidden size, as in Vaswani et al. 2017. Chosen.
        pooling_norm: layer norm after (`"post"`, Vaswani et al. 2017) or before (`"pre"`) each block. Chosen.
        pooling_activation: `"relu"` (Vaswani et al. 2017) or `"gelu"` in the feed-forward. Chosen.
        attentive_scorer: `"tanh"`, v^T tanh(W h + b), one hidden layer (Okabe et al. 2018; Lin et al. 2017),
            or `"linear"`, v^T h. Chosen.
        attentive_hidden_size: width of that hidden layer; None is the hidden size. Chosen.
        self_attention_readout: how the baseline without CLS weighs its frames: `"attentive"`, the
            scorer of stage 1, or `"mean"`. Chosen.
        cls_init_std: standard deviation of the normal initialisation of the CLS vector; 0 starts at zero. Chosen.
        frame_similarity: similarity of the CLS output to a frame, `"dot"` or `"cosine"`. Chosen.
        frame_temperature: the similarity is divided by it before the softmax over frames; None is the
            square root of the hidden size for `"dot"` (scaled dot product), 0.1 for `"cosine"`. Chosen.
        cls_in_embedding: whether the CLS output joins the weighted sum: `"none"`, `"add"` or `"concat"`. Chosen.
        frame_classifier: frames are classified by the utterance classifier (`"shared"`) or by their own
            (`"separate"`). Chosen.
        eal_margin: margin m of the emotional attention loss. Stated: 0.8 best of 0.4, 0.6, 0.8.
        eal_weight: weight of that loss; 0 switches it off. Stated: 0.05 best of 0.05, 0.10, 0.15.
        fual_weight: weight of the frame-to-utterance alignment loss; 0 switches it off. Stated: 0.05 best.
        fual_direction: KL(utterance || frames) is `"utterance_to_frames"`, KL(frames || utterance) is
            `"frames_to_utterance"`. Chosen.
        fual_gradient: which side of the divergence is trained: `"both"`, only `"frames"` or only
            `"utterance"`; the other one is held constant. Chosen.
        label_smoothing: of the cross-entropy. Ours, not the paper's; 0 is off.
        freeze_feature_encoder: keep the convolutional feature encoder fixed. Stated: frozen in both stages.
        log_mel_layer_norm: whether wav2vec2-bert normalises each log-mel frame before its projection, as its
            pretrained checkpoints do; False lets the level of a frame through. Ours.
        temperature: logits of utterance and frames are divided by it, so that their softmax is calibrated
            (Guo et al. 2017); train.py fits it on validation data after training. Ours; 1 changes nothing.
        trim_db: training cut leading and trailing audio this many dB below the peak; the pipeline, which reads
            recordings, does the same. None cuts nothing. Ours.

    EAL and FUAL need the CLS output: they act with `pooling="cls"` alone.

    Raises:
        ValueError: a value outside its choices or range, named with the valid ones.
        TypeError: a misspelt field, named with the nearest one.
    """

    model_type = "ser_align"
    sub_configs_defaults = {"encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="wav2vec2")}
    # Frames and loss parts stay out of the Trainer's evaluation loop, which would pad and copy them.
    keys_to_ignore_at_inference = [
        "frame_logits",
        "frame_weights",
        "frame_mask",
        "embedding",
        "ce_loss",
        "eal_loss",
        "fual_loss",
    ]

    encoder_config: dict | PreTrainedConfig | None = None
    pooling: str = "cls"
    pooling_num_heads: int = 4
    pooling_num_layers: int = 1
    pooling_dropout: float = 0.0
    pooling_intermediate_size: int | None = None
    pooling_norm: str = "post"
    pooling_activation: str = "relu"
    attentive_scorer: str = "tanh"
    attentive_hidden_size: int | None = None
    self_attention_readout: str = "attentive"
    cls_init_std: float = 0.02
    frame_similarity: str = "dot"
    frame_temperature: float | None = None
    cls_in_embedding: str = "none"
    frame_classifier: str = "shared"
    eal_margin: float = 0.8
    eal_weight: float = 0.05
    fual_weight: float = 0.05
    fual_direction: str = "utterance_to_frames"
    fual_gradient: str = "both"
    label_smoothing: float = 0.0
    freeze_feature_encoder: bool = True
    log_mel_layer_norm: bool = True
    temperature: float = 1.0
    trim_db: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        _refuse_misspelt(kwargs)
        find_family(_read_model_type(self.encoder_config))
        num_labels = kwargs.get("num_labels")
        if self.id2label is not None and num_labels not in (None, len(self.id2label)):
            raise ValueError(f"num_labels={num_labels} contradicts id2label, which has {len(self.id2label)} labels")
        super().__post_init__(**kwargs)
        indices = sorted(self.id2label or {})
        if indices != list(range(len(indices))):
            raise ValueError(f"id2label has the indices {indices}, which are not 0 to {len(indices) - 1}")
        # The base class derives id2label from num_labels but never label2id from id2label.
        self.label2id = {str(label): int(index) for index, label in (self.id2label or {}).items()}
        self.validate()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "SERAlignConfig":
        """As in transformers, but what stands in a file does not choose code that would be fetched and run."""
        for part in (config_dict, config_dict.get("encoder_config")):
            refuse_attention_code(part if isinstance(part, dict) else {})
        return super().from_dict(config_dict, **kwargs)

    def validate(self) -> None:
        """Check every field; also run by the model and before saving. Raises ValueError."""
        super().validate()  # type: ignore[misc]  # added to the base class by a decorator
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}")
        for name in POSITIVE_INTEGERS:
            value = getattr(self, name)
            if value is None and name in MAY_BE_NONE:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} is not a whole number of at least 1")
        for name, (low, high, low_allowed, valid) in RANGES.items():
            value = getattr(self, name)
            if value is None and name in MAY_BE_NONE:
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or value > high or value < low or (value == low and not low_allowed):
                raise ValueError(f"{name}={value!r} is not {valid}")
        for name in ("freeze_feature_encoder", "log_mel_layer_norm"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} is not true or false")
        self._validate_combinations()

    def _validate_combinations(self) -> None:
        hidden_size = self.encoder_config.hidden_size
        if self.pooling != "attentive" and hidden_size % self.pooling_num_heads:
            raise ValueError(
                f"pooling_num_heads={self.pooling_num_heads} does not divide the encoder's hidden size {hidden_size}"
            )
        if self.cls_in_embedding == "concat" and self.frame_classifier == "shared":
            raise ValueError(
                "cls_in_embedding='concat' doubles the classifier's input, which no frame can share: "
                "set frame_classifier='separate'"
            )
        if self.pooling == "cls" and self.frame_classifier == "separate" and self.fual_weight == 0:
            raise ValueError("frame_classifier='separate' learns from FUAL alone: set fual_weight above 0")
        if getattr(self.encoder_config, "add_adapter", False):
            raise ValueError("encoder_config.add_adapter=True shortens the frame sequence again: set it to False")

    @property
    def family(self) -> Family:
        """The adapter of the encoder."""
        return find_family(self.encoder_config.model_type)

    @property
    def takes_log_mel(self) -> bool:
        """Whether the encoder reads log-mel frames (`input_features`) instead of a waveform (`input_values`)."""
        return self.family.input_name == "input_features"

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame of the encoder to the next."""
        return self.family.compute_frame_seconds(self.encoder_config)

    @property
    def receptive_field(self) -> int:
        """Shortest utterance that gives one frame: samples at 16 kHz, or stacked log-mel frames."""
        return self.family.compute_receptive_field(self.encoder_config)

    @property
    def shortest_samples(self) -> int:
        """Samples at 16 kHz of the shortest recording that gives one frame."""
        return self.family.compute_shortest_samples(self.encoder_config)


def _read_model_type(encoder_config: dict | PreTrainedConfig | None) -> str:
    if encoder_config is None:
        return "wav2vec2"
    if isinstance(encoder_config, dict):
        return encoder_config.get("model_type", "wav2vec2")
    return encoder_config.model_type


def _refuse_misspelt(unknown: dict[str, Any]) -> None:
    """The base class keeps any unknown keyword in silence: a typo would leave the default in force."""
    known = [*SERAlignConfig.__annotations__, "id2label", "num_labels"]
    for name in set(unknown) - set(known):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        if nearest:
            raise TypeError(f"{name} is not a field of SERAlignConfig; did you mean {nearest[0]}?")


SERAlignConfig.register_for_auto_class()


def refuse_attention_code(config_dict: dict[str, Any]) -> None:
    """The library fetches and runs an attention implementation that is called owner/name, without asking."""
    for name, value in config_dict.items():
        if "attn_implementation" in name and "/" in str(value):
            raise ValueError(f"{name}={value!r} is code from the Hub, which is not run: remove it from config.json")
