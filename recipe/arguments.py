"""Arguments of a run: defaults, then a YAML file, then the command line; the last one wins.

Nothing heavy is imported here, so that `python train.py --help` answers at once.
"""

import argparse
import difflib
import json
import math
import types
import typing
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from core.errors import InputError


def argument(default: Any, help: str, minimum: float | None = None) -> Any:
    metadata = {"help": help, "minimum": minimum}
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelArguments:
    """model: the encoder, the pooling of stage 2 and the losses (the fields of SERAlignConfig)"""

    encoder: str | None = argument(
        "facebook/wav2vec2-base",
        "pretrained speech encoder, Hub name or folder; 'none' starts from scratch with --encoder_config "
        "(paper: facebook/wav2vec2-base)",
    )
    encoder_config: dict = argument(
        {}, "JSON: values of the encoder's configuration to override, or its whole shape, with model_type, from scratch"
    )
    pooling: Literal["self_attention", "cls"] = argument(
        "cls", "pooling of stage 2 (paper: cls; stage 1 always uses attentive pooling)"
    )
    pooling_num_heads: int = argument(4, "attention heads of the pooling encoder (paper: 4)")
    pooling_num_layers: int = argument(1, "layers of the pooling encoder (paper: 1)")
    pooling_dropout: float = argument(0.0, "dropout of the pooling encoder (paper: none)")
    pooling_intermediate_size: int | None = argument(None, "feed-forward width; none is 4 x hidden size (our reading)")
    pooling_norm: Literal["post", "pre"] = argument("post", "layer norm after or before each block (our reading)")
    pooling_activation: Literal["relu", "gelu"] = argument("relu", "of the feed-forward (our reading)")
    attentive_scorer: Literal["tanh", "linear"] = argument("tanh", "scorer of attentive pooling (our reading)")
    attentive_hidden_size: int | None = argument(None, "its hidden width; none is the hidden size (our reading)")
    self_attention_readout: Literal["attentive", "mean"] = argument(
        "attentive", "how the baseline without CLS weighs its frames (our reading)"
    )
    cls_init_std: float = argument(0.02, "standard deviation of the initial CLS vector (our reading)")
    frame_similarity: Literal["dot", "cosine"] = argument("dot", "similarity of CLS and frame (our reading)")
    frame_temperature: float | None = argument(
        None, "temperature of the frame softmax; none is sqrt(hidden size) for dot, 0.1 for cosine (our reading)"
    )
    cls_in_embedding: Literal["none", "add", "concat"] = argument(
        "none", "whether the CLS output joins the weighted sum (our reading)"
    )
    frame_classifier: Literal["shared", "separate"] = argument(
        "shared", "frames use the utterance classifier or their own (our reading)"
    )
    eal_margin: float = argument(0.8, "margin of EAL (paper: 0.8 best of 0.4, 0.6, 0.8)")
    eal_weight: float = argument(0.05, "weight of EAL, 0 is off (paper: 0.05 best of 0.05, 0.10, 0.15)")
    fual_weight: float = argument(0.05, "weight of FUAL, 0 is off (paper: 0.05 best)")
    fual_direction: Literal["utterance_to_frames", "frames_to_utterance"] = argument(
        "utterance_to_frames", "KL(utterance || frames) or the reverse (our reading)"
    )
    fual_gradient: Literal["both", "frames", "utterance"] = argument("both", "which side FUAL trains (our reading)")
    label_smoothing: float = argument(0.0, "of the cross-entropy (ours)")
    freeze_feature_encoder: bool = argument(True, "keep the convolutional feature encoder fixed (paper: both stages)")
    log_mel_layer_norm: bool = argument(
        True,
        "wav2vec2-bert normalises each log-mel frame, as its pretrained checkpoints do; false keeps its level (ours)",
    )


# fmt: off
Corpus = Literal[
    "demo", "folder", "hub",
    "iemocap", "cremad", "ravdess", "emodb", "savee", "tess", "esd", "meld", "msp_podcast", "urdu",
]
# fmt: on


@dataclass
class DataArguments:
    """data: corpus, split and audio"""

    corpus: Corpus = argument(
        "demo",
        "demo (synthetic, generated), folder (your own recordings), hub (any dataset of the Hugging Face Hub), or a "
        "published corpus in its official layout",
    )
    data_dir: str | None = argument(
        None, "directory of the corpus, of hub a name on the Hub or a folder; demo writes its own under data/demo"
    )
    partial_corpus: bool = argument(False, "take a copy of a published corpus that lacks utterances as it is")
    max_broken_share: float = argument(
        0.01,
        "share of the audio files that may be unreadable, damaged or silent: they are named and left out, and more of "
        "them stop the run (ours)",
        minimum=0,
    )
    csv: str | None = argument(None, "corpus folder: CSV with columns path, label and optionally speaker, split")
    allow_outside_paths: bool = argument(
        False,
        "corpora folder and hub: also read what lies outside the corpus's directory, where absolute paths, '..' or "
        "links lead, or on a server; a list made by others could name any file of this machine",
    )
    hub_options: dict = argument(
        {},
        "corpus hub: audio_column, label_column, speaker_column, config, split, streaming, limit; the first two are "
        "audio and label unless given, and there is no speaker",
    )
    label_map: dict = argument(
        {},
        'merge, rename or drop labels: {"happy": "happy", "excited": "happy", ...}; what it does not name is dropped',
    )
    only: dict = argument(
        {},
        'keep utterances whose columns have these values, such as {"style": "improvised"} or {"intensity": "strong"}',
    )
    test_corpus: Corpus | None = argument(None, "test on this other corpus; the first one trains and validates")
    test_data_dir: str | None = argument(None, "its directory")
    test_hub_options: dict = argument({}, "its hub_options")
    test_label_map: dict = argument({}, "its label_map; of both corpora the labels that they share are kept")
    protocol: Literal["published", "speaker_folds", "leave_one_speaker_out", "leave_one_session_out"] = argument(
        "published",
        "published: RAVDESS six folds, CREMA-D five, IEMOCAP one for each session, a split column as it is, others "
        "speaker_folds",
    )
    fold: int = argument(1, "which fold is the test set, from 1", minimum=1)
    num_folds: int = argument(5, "folds by speaker, where the protocol is speaker_folds", minimum=2)
    num_validation_speakers: int | None = argument(
        None, "training speakers that validate, at least 1; none takes about a fifth of them", minimum=1
    )
    split_seed: int = argument(0, "seed of every random choice of speakers", minimum=0)
    trim_db: float | None = argument(
        None, "cut leading and trailing audio that is this many dB below the peak; none keeps it", minimum=1
    )
    speed_factors: list[float] = argument(
        [1.0],
        "training utterances are played at one of these speeds, drawn anew each time (1.0 is unchanged)",
        minimum=0.1,
    )
    pitch_steps: list[float] = argument(
        [0.0], "training utterances are shifted by one of these numbers of semitones, at the same speed, drawn likewise"
    )
    noise_snrs: list[float] = argument(
        [],
        "white noise is added to training utterances at one of these signal-to-noise ratios in dB, drawn likewise",
    )
    mix_probability: float = argument(
        0.0,
        "share of the training utterances that are heard with another one of the batch, 5 dB below to 10 dB above it; "
        "the label is then divided by energy and coverage (Wang et al. 2025)",
        minimum=0,
    )
    max_duration: float | None = argument(
        None, "seconds; longer training utterances are cut to their middle, evaluation ones never", minimum=0.1
    )
    duration_pool: int = argument(
        16,
        "training batches are cut from pools of so many, sorted by duration; 1 draws them at random, padding more",
        minimum=1,
    )
    cache_audio: bool = argument(
        True,
        "keep prepared utterances in memory after first use: 64 kB a second of audio, for each speed and noise, "
        "in each process that reads audio",
    )
    keep_features: bool = argument(
        True,
        "run the frozen convolutional feature encoder once for each utterance and keep its output on disk until the "
        "run is done: 0.1 MB a second of audio, for each speed and noise",
    )
    features_dir: str | None = argument(
        None, "where runs that share recordings and encoder keep that output, for good; none is OUTPUT_DIR/features"
    )


@dataclass
class TrainerArguments:
    """trainer: optimisation, run and output"""

    output_dir: str = argument("outputs/demo", "where the stage folders go")
    stage: Literal["1", "2", "both"] = argument("both", "which stage to train")
    init_from: str | None = argument(
        None, "folder of a stage-1 model that stage 2 starts from; none is OUTPUT_DIR/stage1"
    )
    init_classifier: Literal["new", "stage1"] = argument(
        "new", "stage 2 starts with a new classifier, or with that of stage 1 (our reading: new)"
    )
    num_epochs: float = argument(10.0, "passes over the training utterances", minimum=0.01)
    max_steps: int = argument(-1, "stop after so many updates; -1 goes by num_epochs", minimum=-1)
    batch_size: int = argument(16, "utterances in a batch, all processes together", minimum=1)
    eval_batch_size: int = argument(32, "utterances in an evaluation batch; scores do not depend on it", minimum=1)
    gradient_accumulation_steps: int = argument(1, "batches summed into one update", minimum=1)
    learning_rate: float = argument(2e-5, "of the encoder", minimum=0)
    pooling_learning_rate: float = argument(1e-4, "of the pooling", minimum=0)
    classifier_learning_rate: float = argument(1e-4, "of the classifier", minimum=0)
    weight_decay: float = argument(0.01, "of AdamW; biases, norms and the CLS vector have none", minimum=0)
    warmup_ratio: float = argument(0.1, "share of the updates in which the learning rates rise", minimum=0)
    lr_scheduler: Literal["linear", "cosine", "constant_with_warmup"] = argument(
        "linear", "how the learning rates fall after that"
    )
    max_grad_norm: float = argument(1.0, "gradients are clipped to this norm", minimum=0)
    averaging: float = argument(
        0.0,
        "decay of a moving average of the weights over updates, which is then evaluated and saved; 0.998 spans about "
        "500 updates, 0 is off",
        minimum=0,
    )
    seed: int = argument(0, "of weights, batches, dropout and SpecAugment", minimum=0)
    bf16: bool = argument(False, "train in bfloat16 autocast")
    activation_checkpointing: bool = argument(False, "recompute activations in the backward pass to save memory")
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] | None = argument(
        None, "attention of the encoder; none takes sdpa where the encoder has it"
    )
    num_workers: int = argument(0, "processes that read audio", minimum=0)
    use_cpu: bool = argument(False, "train on the CPU even if a GPU is there")
    logging_steps: int = argument(10, "updates between two logged training losses", minimum=1)
    tensorboard: bool = argument(False, "write TensorBoard logs into the stage folder")
    watch_test: bool = argument(
        False,
        "score the test part after each epoch too, to report what choosing on it would add; it is never chosen on",
    )
    overwrite: bool = argument(False, "train again from the start, in place of the results and checkpoints there")
    push_to_hub: str | None = argument(
        None, "Hub name, such as user/ser-align, to push the last trained stage to; a new repository is private"
    )
    hub_public: bool = argument(False, "make a new repository of --push_to_hub public; one that exists stays as it is")


@dataclass
class Arguments:
    """All arguments of one stage."""

    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    trainer: TrainerArguments = field(default_factory=TrainerArguments)

    def flat(self) -> dict[str, Any]:
        return {**asdict(self.model), **asdict(self.data), **asdict(self.trainer)}

    def without_paths(self) -> dict[str, Any]:
        """For what is published: without the places on one person's disk; of an encoder's folder its name stays."""
        values = {name: value for name, value in self.flat().items() if name not in PATHS}
        if self.model.encoder is not None and Path(self.model.encoder).is_dir():
            values["encoder"] = Path(self.model.encoder).resolve().name
        return values


GROUPS = (ModelArguments, DataArguments, TrainerArguments)
PATHS = ("data_dir", "test_data_dir", "csv", "output_dir", "init_from", "features_dir")
# May differ when an interrupted run goes on: they do not change the method, the data or the order of the batches.
FREE_TO_CHANGE = (
    *("output_dir", "init_from", "stage", "overwrite", "push_to_hub", "hub_public", "watch_test"),
    *("eval_batch_size", "num_workers", "cache_audio", "keep_features", "features_dir", "max_broken_share"),
    *("tensorboard", "logging_steps", "data_dir", "test_data_dir", "csv", "allow_outside_paths", "use_cpu"),
    "attn_implementation",
)
# What a record of a run holds beside its options, and what a difference there means.
RECORDED = {"rows": "other utterances or another split", "stage1": "another stage 1"}
STAGE_SECTIONS = ("stage1", "stage2")
# Both stages train and score on one split, in one folder.
WHOLE_RUN = (
    *("corpus", "data_dir", "partial_corpus", "max_broken_share", "csv", "allow_outside_paths", "hub_options"),
    *("label_map", "only"),
    *("test_corpus", "test_data_dir", "test_hub_options", "test_label_map"),
    *("protocol", "fold", "num_folds", "num_validation_speakers", "split_seed"),
    *("output_dir", "stage", "init_from", "use_cpu", "push_to_hub", "hub_public"),
)
# argparse's way to take `--bf16` as `--bf16 true`, and several numbers
_NARGS: dict[Any, dict[str, Any]] = {bool: {"nargs": "?", "const": "true"}, list[float]: {"nargs": "+"}}
_FIELDS: dict[str, Field] = {f.name: f for group in GROUPS for f in fields(group)}
_TYPES = {name: hint for group in GROUPS for name, hint in typing.get_type_hints(group).items()}


def first_difference(earlier: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first option, of those that decide the outcome, in which two records of a run differ, and how many more do.

    A record holds the options of a run and may hold more. An option that is newer than the earlier record had no
    effect then, as its default has none.
    """
    earlier = {**Arguments().flat(), **earlier}
    changed = [n for n in now if n not in FREE_TO_CHANGE and earlier.get(n) != now[n]]
    if not changed:
        return None
    name = changed[0]
    what = RECORDED.get(name, f"{name}={earlier.get(name)!r}, now it is {now[name]!r}")
    return what + (f" (and {len(changed) - 1} more differ)" if changed[1:] else "")


def option_help(name: str) -> str:
    """What an option is, as --help says it."""
    return _FIELDS[name].metadata["help"]


def parse_arguments(argv: list[str], description: str) -> dict[int, Arguments]:
    """Command line (and the YAML file that it names) to one set of arguments for each stage, {1: ..., 2: ...}.

    A YAML file holds any argument at its top level, and under `stage1` and `stage2` what differs between
    the stages. Precedence: defaults, top level, stage section, command line.

    Raises:
        InputError: an unknown key, a value of the wrong type, or a file that cannot be read.
    """
    parser = _make_parser(description)
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        option = unknown[0].split("=")[0]
        raise InputError(f"{option} is not an option{_suggest(option.lstrip('-'), '--')}; --help lists all of them")
    given = vars(namespace)
    config_path = given.pop("config")
    from_file = read_yaml(config_path) if config_path else {}
    if "variants" in from_file:
        raise InputError(f"{config_path} is an experiment of many runs: python experiment.py --config {config_path}")
    sections = {name: from_file.pop(name, None) or {} for name in STAGE_SECTIONS}
    for section, values in sections.items():
        if not isinstance(values, dict):
            raise InputError(f"{config_path}: {section} must hold 'name: value' lines, not {values!r}")
        for name in set(values) & set(WHOLE_RUN):
            raise InputError(f"{config_path}: '{name}' is the same for both stages; move it out of {section}")
    top_level = _converted(from_file, config_path)
    command_line = {name: _convert(name, value, f"--{name}") for name, value in given.items()}
    arguments = {
        stage: _build(_merged(top_level, _converted(sections[f"stage{stage}"], config_path), command_line))
        for stage in (1, 2)
    }
    run = arguments[1].trainer
    if run.init_from is not None and run.stage != "2":
        raise InputError(f"--init_from {run.init_from} is where stage 2 starts, so it goes with --stage 2")
    return arguments


def _merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """The last layer wins; of `encoder_config`, key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            merged[name] = {**merged.get(name, {}), **value} if name == "encoder_config" else value
    return merged


def _make_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        usage="train.py [--config FILE] [--option value ...]",
        description=description,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", default=None, help="YAML file with any of the options below")
    for group in GROUPS:
        section = parser.add_argument_group((group.__doc__ or "").strip())
        for f in fields(group):
            hint = _TYPES[f.name]
            default = f.default if f.default is not MISSING else f.default_factory()  # type: ignore[misc]
            shown = "none" if default is None else default if isinstance(default, str) else json.dumps(default)
            section.add_argument(
                f"--{f.name}",
                metavar=_describe_type(hint).upper() if not _choices(hint) else "{" + ",".join(_choices(hint)) + "}",
                help=f"{f.metadata['help']} [{shown}]".replace("%", "%%"),
                **_NARGS.get(hint, {}),
            )
    return parser


def read_yaml(path: str) -> dict[str, Any]:
    """The mapping of a YAML file. Raises InputError."""
    if not Path(path).is_file():
        near = sorted(str(p) for p in Path("run_configs").rglob("*.yaml"))
        raise InputError(f"--config {path}: no such file; there are {', '.join(near) or 'none in run_configs'}")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold 'name: value' lines, but holds a {type(content).__name__}")
    return content


def _converted(values: dict[str, Any], path: str | None) -> dict[str, Any]:
    for name in values:
        if name not in _FIELDS:
            raise InputError(f"{path}: '{name}' is not an option{_suggest(str(name))}")
    return {name: _convert(name, value, f"{path}: {name}") for name, value in values.items()}


def _suggest(name: str, prefix: str = "") -> str:
    nearest = difflib.get_close_matches(name, [*_FIELDS, "config", *STAGE_SECTIONS], n=1)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""


def _build(values: dict[str, Any]) -> Arguments:
    def of(group: type) -> dict[str, Any]:
        return {f.name: values[f.name] for f in fields(group) if f.name in values}

    return Arguments(
        ModelArguments(**of(ModelArguments)),
        DataArguments(**of(DataArguments)),
        TrainerArguments(**of(TrainerArguments)),
    )


def _options(hint: Any) -> tuple[Any, bool]:
    """A type hint without its None, and whether None was in it."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        return members[0], True
    return hint, False


def _choices(hint: Any) -> tuple[str, ...]:
    hint, _ = _options(hint)
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _describe_type(hint: Any) -> str:
    hint, _ = _options(hint)
    return {bool: "true|false", int: "int", float: "float", str: "text", dict: "json", list[float]: "float"}[hint]


def _convert(name: str, value: Any, source: str) -> Any:
    """One value from YAML or the command line to the type of its field, not below its minimum."""
    converted = _typed(name, value, source)
    minimum = _FIELDS[name].metadata["minimum"]
    numbers = converted if isinstance(converted, list) else [converted]
    if minimum is not None and any(number is not None and number < minimum for number in numbers):
        raise InputError(f"{source}: {value!r} is not valid; {_valid(_options(_TYPES[name])[0])} of at least {minimum}")
    return converted


def _typed(name: str, value: Any, source: str) -> Any:
    """A value in the type of its field; `1e-4` is a number in YAML and on the command line."""
    hint, optional = _options(_TYPES[name])
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null") and "none" not in _choices(hint)):
        if optional:
            return None
        raise InputError(f"{source}: a value is missing; {_valid(hint)}")
    try:
        if _choices(hint):
            if str(value) in _choices(hint):
                return str(value)
        elif hint is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[value.lower()]
        elif hint is int and not isinstance(value, bool):
            if int(value) == float(value):
                return int(value)
        elif hint is float and not isinstance(value, bool):
            if math.isfinite(float(value)):
                return float(value)
        elif hint is str and isinstance(value, str):
            return value
        elif hint == list[float] and value == ["none"]:
            return []
        elif hint == list[float] and isinstance(value, list):
            if all(math.isfinite(float(number)) for number in value):
                return [float(number) for number in value]
        elif hint is dict:
            converted = json.loads(value) if isinstance(value, str) else value
            if isinstance(converted, dict):
                return converted
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise InputError(f"{source}: {value!r} is not valid; {_valid(hint)}")


def _valid(hint: Any) -> str:
    if _choices(hint):
        return f"give one of {', '.join(_choices(hint))}"
    return {
        bool: "give true or false",
        int: "give a whole number",
        float: "give a number",
        str: "give text",
        list[float]: "give numbers",
        dict: "give name: value pairs, as JSON on the command line: '{\"layerdrop\": 0}'",
    }[hint]
