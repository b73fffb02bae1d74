"""Configuration of SER-Align: the encoder, the pooling and the alignment losses.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

import difflib
import warnings
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import transformers
from transformers import AutoConfig, PreTrainedConfig, SequenceFeatureExtractor

try:
    from .checks_ser_align import check_distillation, refuse_attention_code
    from .dimensions_ser_align import check_dimensions
    from .encoders_ser_align import Family, find_family
    from .feature_extraction_ser_align import add_trimming
    from .fields_ser_align import SAMPLING_RATE, SERAlignFields
    from .losses_ser_align import LOSS_NAMES
    from .options_ser_align import check_field, option
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from checks_ser_align import check_distillation, refuse_attention_code
    from dimensions_ser_align import check_dimensions
    from encoders_ser_align import Family, find_family
    from feature_extraction_ser_align import add_trimming
    from fields_ser_align import SAMPLING_RATE, SERAlignFields
    from losses_ser_align import LOSS_NAMES
    from options_ser_align import check_field, option

try:
    from transformers.configuration_utils import SubConfigSpec
except ImportError:
    raise ImportError(
        f"this model needs transformers 5.20.0 or newer, and {transformers.__version__} is installed: "
        "pip install --upgrade transformers"
    ) from None

if TYPE_CHECKING:
    # Never imported. transformers copies every file that a saved or loaded file names in this form, and config.json
    # names classes of these two: so the code of the model and of its pipeline is wherever a configuration is.
    from .modeling_ser_align import SERAlignForAudioClassification  # noqa: F401
    from .pipeline_ser_align import SpeechEmotionRecognitionPipeline  # noqa: F401

FORMER_TEMPERATURE = "temperature"  # name of calibration_temperature in earlier releases
LABEL_NAMES = ("num_labels", "id2label", "label2id")
# What was fitted on the labels of a trained model, so that it says nothing of other ones.
FITTED_ON_LABELS = (
    "calibration_temperature",
    FORMER_TEMPERATURE,
    "unsure_below",
    "mixed_above",
    "class_weights",
    "statistics_layers",
    "tracker_size",
)


class SERAlignConfig(PreTrainedConfig, SERAlignFields):
    """Configuration of [`SERAlignForAudioClassification`]. Inherits the fields of [`SERAlignFields`].

    Args:
        encoder_config: configuration of the speech encoder, or a dict with a `model_type`. Encoders that take raw
            waveforms: wav2vec2 (used in the paper; the default has the architecture of facebook/wav2vec2-base),
            hubert, wavlm, data2vec-audio, unispeech, unispeech-sat, wav2vec2-conformer. Encoders that take log-mel
            frames: wav2vec2-bert, whisper, audio-spectrogram-transformer.
        text_encoder_config: configuration of the text encoder, of a model that also reads words; None for one that does
            not.
        calibration_temperature: divides the utterance and frame logits, so that their softmax is calibrated (Guo et
            al. 2017); train.py fits it on validation data. Ours; 1 leaves the logits unchanged. Earlier releases
            called it `temperature`; their configurations still load.
        unsure_below: score of the best label below which an answer is unsure; train.py fits it on validation data (see
            `--sure_accuracy`). Ours; 0 calls no answer unsure.
        mixed_above: score above which a label is part of a mixed answer; train.py fits it on validation data if it
            trains on label distributions. Ours; None means that answers name one label.
        class_weights: weight of each class in the cross-entropy, KL and the focal loss, in the order of id2label;
            train.py computes them from `--class_weights`. Ours; None weights all alike.
        dimension_names: the dimensions that the model predicts, such as `["valence", "arousal"]`; train.py sets them
            with `--targets dimensions`. None means none. Lists keep their order in a saved configuration, maps do not.
        dimension_scales: lowest and highest value of each dimension.
        dimension_source: `"rated"` by people; `"mapped"` if the values were those of the label of each training
            utterance; or `"known"` if the training utterances were made with these values.
        dimension_calibration: slope and intercept that calibrate each dimension, and the root mean square error of its
            calibrated values; train.py fits them on validation data. None leaves the values unchanged.
        region_class_weights: weight of each region in the loss of `region_weight`, in the order of `list_regions`.
        classes_are_regions: whether the classes are the regions of the dimensions, whose scores follow from the values.
        teacher_size: number of features of the frames that `frame_distillation_weight` compares with; train.py sets it.
        bandwidth: bandwidth in Hz of the speech that the model was trained on, measured by train.py; the pipeline warns
            if a recording has clearly less. Ours; None means unknown, as in earlier releases, and is taken as 8000.

    Raises:
        ValueError: a value is out of range or not one of the choices; the message gives the valid values.
        TypeError: a field is misspelt; the message suggests the closest match.
    """

    model_type = "ser_align"
    sub_configs_defaults = {
        "encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="wav2vec2"),
        "text_encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="bert", optional=True),
    }
    # Keeps frame outputs and losses out of the Trainer's evaluation loop, which would pad and copy them.
    keys_to_ignore_at_inference = [
        *("frame_logits", "frame_weights", "frame_mask", "tracker_logits", "embedding", "voice_logits", "text_logits"),
        *LOSS_NAMES,
    ]

    encoder_config: dict | PreTrainedConfig | None = None
    text_encoder_config: dict | PreTrainedConfig | None = None
    calibration_temperature: float = option(1.0, "divides all logits; fitted on validation data", "ours", above=0)
    unsure_below: float = option(
        0.0,
        "score of the best label below which an answer is unsure; fitted on validation data",
        "ours",
        minimum=0,
        maximum=1,
    )
    mixed_above: float | None = option(
        None,
        "score above which a label is part of a mixed answer; fitted on validation data",
        "ours",
        minimum=0,
        maximum=1,
    )
    class_weights: list[float] | None = option(
        None,
        "weight of each class in the cross-entropy, KL and the focal loss, in the order of id2label",
        "ours",
        above=0,
    )
    dimension_names: list[str] | None = None
    dimension_scales: list[list[float]] | None = None
    dimension_source: str = "rated"
    dimension_calibration: list[list[float]] | None = None
    region_class_weights: list[float] | None = option(
        None, "weight of each region in the cross-entropy of regions", "ours", above=0
    )
    classes_are_regions: bool = False
    teacher_size: int | None = None
    bandwidth: float | None = option(
        None, "bandwidth in Hz of the speech that the model was trained on", "ours", above=0, maximum=SAMPLING_RATE / 2
    )

    def __post_init__(self, **kwargs: Any) -> None:
        if FORMER_TEMPERATURE in kwargs:
            self.calibration_temperature = kwargs.pop(FORMER_TEMPERATURE)
        _refuse_misspelt(kwargs)
        find_family(_read_model_type(self.encoder_config))
        self.id2label = combine_labels(kwargs.pop("num_labels", None), self.id2label, self.label2id)
        super().__post_init__(**kwargs)
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        """As in transformers, but label2id follows id2label; and other names of the classes are no other classes,
        while another number of them is, so that what was fitted on the former ones is dropped."""
        if name != "id2label" or value is None:
            return super().__setattr__(name, value)
        former, labels = self.__dict__.get("id2label"), combine_labels(id2label=value) or {}
        super().__setattr__("id2label", labels)
        super().__setattr__("label2id", {label: index for index, label in labels.items()})
        if former is not None and len(former) != len(labels):
            warn_of_other_labels()
            for field in fields(self):
                if field.name in FITTED_ON_LABELS:
                    setattr(self, field.name, field.default)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "SERAlignConfig":
        """As in transformers, but labels given here replace those of the file and all that was fitted on them, and a
        file cannot select code to download and run."""
        for part in (config_dict, config_dict.get("encoder_config"), config_dict.get("text_encoder_config")):
            refuse_attention_code(part if isinstance(part, dict) else {})
        given = {name: kwargs.pop(name) for name in LABEL_NAMES if name in kwargs}
        return super().from_dict(_replace_labels(config_dict, **given), **kwargs)

    def validate(self) -> None:
        """Check every field; also called by the model and before saving. Raises ValueError."""
        super().validate()  # type: ignore[misc]  # added to the base class by a decorator
        for field in fields(self):
            if "help" in field.metadata:  # a field of ours, declared by option()
                check_field(field, getattr(self, field.name))
        combine_labels(id2label=self.id2label, label2id=self.label2id)
        if self.problem_type not in (None, "single_label_classification"):
            raise ValueError(
                f"problem_type={self.problem_type!r} is not supported: each utterance has one class or a distribution "
                "over the classes; leave problem_type out"
            )
        self._validate_combinations()

    def _validate_combinations(self) -> None:
        check_dimensions(self)
        check_distillation(self)
        hidden_size = self.encoder_config.hidden_size
        has_heads = self.pooling in ("self_attention", "cls", "flam", "style") or (
            self.reads_text and self.text_fusion == "cross_attention"
        )
        if has_heads and hidden_size % self.pooling_num_heads:
            raise ValueError(
                f"pooling_num_heads={self.pooling_num_heads} does not divide the encoder's hidden size {hidden_size}"
            )
        if self.cls_in_embedding == "concat" and self.frame_classifier == "shared":
            raise ValueError(
                "cls_in_embedding='concat' doubles the input size of the classifier, so frames cannot share it: "
                "set frame_classifier='separate'"
            )
        if self.reads_text and (self.statistics_layers > 0 or self.classes_are_regions):
            name = "statistics_layers" if self.statistics_layers > 0 else "classes_are_regions"
            raise ValueError(f"{name} is for the voice alone: turn it off, or leave out the text encoder")
        if self.class_weights is not None and len(self.class_weights) != self.num_labels:
            raise ValueError(
                f"class_weights has {len(self.class_weights)} weights for {self.num_labels} classes: give one for each"
            )
        if self.pooling == "cls" and self.frame_classifier == "separate" and self.fual_weight == 0:
            raise ValueError("frame_classifier='separate' is trained only by FUAL: set fual_weight above 0")
        class_losses = self.ce_weight, self.kl_weight, self.cosine_weight, self.focal_weight
        if not any(class_losses) and not self.classes_are_regions:
            raise ValueError(
                "no loss trains the classifier: set ce_weight, kl_weight, cosine_weight or focal_weight above 0"
            )
        if self.ce_weight == 0 and self.label_smoothing > 0:
            raise ValueError(
                f"label_smoothing={self.label_smoothing:g} smooths the labels of the cross-entropy, which ce_weight=0 "
                "disables: set label_smoothing=0"
            )
        num_layers = self.encoder_config.num_hidden_layers
        if self.freeze_encoder_layers > num_layers:
            raise ValueError(
                f"freeze_encoder_layers={self.freeze_encoder_layers}, but the encoder has {num_layers} layers: give at "
                f"most {num_layers}"
            )
        if self.averaging_layer > self.freeze_encoder_layers:
            raise ValueError(
                f"average_after={self.average_after}, but only {self.freeze_encoder_layers} layers are frozen: freeze "
                "the layers before the averaging with freeze_encoder_layers, or average earlier"
            )
        if self.statistics_layers > self.freeze_encoder_layers:
            raise ValueError(
                f"statistics_layers={self.statistics_layers}, but only {self.freeze_encoder_layers} layers are frozen: "
                "freeze as many with freeze_encoder_layers, since the statistics are fitted once"
            )
        rows = self.family.count_rows(self.encoder_config)
        if self.patchout_rows >= rows:
            has = f"has {rows} rows of patches: drop at most {rows - 1}" if rows > 1 else "has no patches: set it to 0"
            raise ValueError(f"patchout_rows={self.patchout_rows}, but the encoder {has}")
        if getattr(self.encoder_config, "add_adapter", False):
            raise ValueError("encoder_config.add_adapter=True would downsample the frames again: set it to False")

    @property
    def family(self) -> Family:
        """The adapter for the encoder's family."""
        return find_family(self.encoder_config.model_type)

    @property
    def reads_text(self) -> bool:
        """Whether the model has a text encoder."""
        return self.text_encoder_config is not None

    @property
    def takes_log_mel(self) -> bool:
        """Whether the encoder takes log-mel frames (`input_features`) instead of a waveform (`input_values`)."""
        return self.family.input_name == "input_features"

    @property
    def dimensions(self) -> dict[str, list[float]] | None:
        """The scale of each dimension, in their order; None for a model without."""
        if self.dimension_names is None:
            return None
        return dict(zip(self.dimension_names, self.dimension_scales or ()))

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.family.compute_frame_seconds(self.encoder_config) * self.average_frames

    @property
    def averaging_layer(self) -> int:
        """Number of layers before the one whose input is averaged over `average_frames` frames."""
        return self.freeze_encoder_layers if self.average_after is None else self.average_after

    @property
    def receptive_field(self) -> int:
        """Length of the shortest utterance that gives one frame, in samples at 16 kHz or log-mel frames."""
        return self.family.compute_receptive_field(self.encoder_config)

    @property
    def shortest_samples(self) -> int:
        """Length of the shortest recording that gives one frame, in samples at 16 kHz."""
        return self.family.compute_shortest_samples(self.encoder_config)

    @property
    def longest_seconds(self) -> float | None:
        """Seconds of the longest utterance that the encoder takes; None if there is no limit."""
        longest = self.family.compute_longest(self.encoder_config)
        return None if longest is None else longest * self.family.compute_unit_seconds(self.encoder_config)

    @property
    def extracted_frame_seconds(self) -> float:
        """Seconds from one frame to the next in the output of `extract_features`."""
        return self.frame_seconds / (self.average_frames if self.freeze_encoder_layers == 0 else 1)

    @property
    def extracted_size(self) -> int:
        """Number of features of a frame in the output of `extract_features`."""
        if self.freeze_encoder_layers == 0:
            return self.family.get_channels(self.encoder_config)
        num_states = self.freeze_encoder_layers + 1 if self.extracts_all_layers else 1
        return num_states * self.family.get_state_size(self.encoder_config)

    @property
    def extracts_all_layers(self) -> bool:
        """Whether `extract_features` also returns the input of the first layer and the output of each fixed one."""
        return self.layer_mix != "last" or self.statistics_layers > 0

    def build_feature_extractor(self, trim_db: float | None = None) -> SequenceFeatureExtractor:
        """Build a feature extractor that fits the encoder, trims as [`trim`] does and returns the attention mask."""
        extractor = add_trimming(self.family.build_feature_extractor(self.encoder_config), trim_db)
        extractor.return_attention_mask = True
        return extractor


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


def combine_labels(num_labels: int | None = None, id2label: Any = None, label2id: Any = None) -> dict[int, str] | None:
    """The labels by their index, from any of the three ways to give them; None if none is given.

    Raises:
        ValueError: they contradict each other, two labels are equal, or the indices are not 0 to n - 1.
    """
    if num_labels is not None and not (isinstance(num_labels, int) and num_labels > 0):
        raise ValueError(f"num_labels={num_labels!r} is not a whole number of at least 1")
    labels = _read_labels("id2label", id2label, "{0: 'angry', 1: 'happy'}")
    by_name = _read_labels("label2id", label2id, "{'angry': 0, 'happy': 1}")
    if None not in (labels, by_name) and labels != by_name:
        raise ValueError(f"label2id={label2id} contradicts id2label={id2label}: give one of them, the other follows")
    labels = by_name if labels is None else labels
    if labels is None:
        return None if num_labels is None else {index: f"LABEL_{index}" for index in range(num_labels)}
    if list(labels) != list(range(len(labels))):
        raise ValueError(f"id2label has the indices {list(labels)}; they must be 0 to {len(labels) - 1}")
    if num_labels not in (None, len(labels)):
        raise ValueError(f"num_labels={num_labels} does not match id2label, which has {len(labels)} labels")
    return labels


def _read_labels(name: str, given: Any, example: str) -> dict[int, str] | None:
    """An id2label or label2id as a map from index to label, in the order of the indices, which may be given as text."""
    if given is None:
        return None
    try:
        pairs = [(index, label) if name == "id2label" else (label, index) for index, label in given.items()]
        labels = {int(index): str(label) for index, label in sorted(pairs, key=lambda pair: int(pair[0]))}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"{name}={given!r} is not a map such as {example}") from None
    if len({*labels.values()}) < len(given):
        raise ValueError(f"{name}={given!r} gives two classes the same index or label: each needs its own")
    return labels


def _replace_labels(config_dict: dict[str, Any], **given: Any) -> dict[str, Any]:
    """The content of a configuration file under other labels; without what was fitted on the former ones."""
    labels = combine_labels(**given)
    former = combine_labels(id2label=config_dict.get("id2label")) or combine_labels(num_labels=2)  # the library's
    is_count = given.get("id2label") is None and given.get("label2id") is None
    if labels is None or labels == former or (is_count and len(labels) == len(former or ())):
        return config_dict
    warn_of_other_labels()
    return {
        **{name: value for name, value in config_dict.items() if name not in (*LABEL_NAMES, *FITTED_ON_LABELS)},
        "id2label": labels,
    }


def warn_of_other_labels() -> None:
    warnings.warn(
        "the labels are not those that this model was trained on: train it on them before use; its calibration and "
        "class weights were dropped. To rename labels and keep the calibration, set model.config.id2label after "
        "loading",
        stacklevel=2,
    )
