"""The options of a run: each stands here (or in fields_ser_align.py) once, with its default, range and meaning.

Nothing heavy is imported here, so that `python train.py --help` answers at once.
"""

from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from fields_ser_align import SERAlignFields, option


@dataclass(kw_only=True)
class ModelArguments(SERAlignFields):
    """model: the encoder, the pooling of stage 2 and the losses"""

    encoder: str | None = option(
        "facebook/wav2vec2-base",
        "pretrained speech encoder, a Hub name or a folder; none trains --encoder_config from scratch",
        "paper",
    )
    encoder_config: dict = option(
        {},
        "JSON of encoder settings to override; with --encoder none the whole shape of the encoder, with model_type",
        "ours",
    )


# fmt: off
Corpus = Literal[
    "demo", "folder", "hub",
    "iemocap", "cremad", "ravdess", "emodb", "savee", "tess", "esd", "meld", "msp_podcast", "urdu",
]
# fmt: on


@dataclass(kw_only=True)
class DataArguments:
    """data: corpus, split and audio"""

    corpus: Corpus = option(
        "demo",
        "corpus to train on: demo (synthetic, generated), folder (your own recordings), hub (a dataset of the Hugging "
        "Face Hub), or a published corpus in its official layout",
        both_stages=True,
    )
    data_dir: str | None = option(
        None,
        "directory of the corpus; with --corpus hub a dataset's name or folder; none generates demo in data/demo",
        is_path=True,
        may_change=True,
        both_stages=True,
    )
    partial_corpus: bool = option(False, "accept a published corpus that lacks utterances", both_stages=True)
    max_broken_share: float = option(
        0.01,
        "largest share of unreadable, damaged or silent audio files that a run drops with a warning; more stop it",
        "ours",
        minimum=0,
        maximum=1,
        may_change=True,
        both_stages=True,
    )
    csv: str | None = option(
        None,
        "CSV file for --corpus folder, with columns path, label and optionally speaker and split",
        is_path=True,
        may_change=True,
        both_stages=True,
    )
    allow_outside_paths: bool = option(
        False,
        "let --corpus folder and hub read files outside the corpus directory, by absolute paths, '..', links or URLs; "
        "a list from somebody else could then name any file of this machine",
        may_change=True,
        both_stages=True,
    )
    hub_options: dict = option(
        {},
        "JSON for --corpus hub: audio_column [audio], label_column [label], speaker_column, config, split, streaming, "
        "limit",
        both_stages=True,
    )
    label_map: dict = option(
        {},
        'JSON that merges, renames or drops labels: {"happy": "happy", "excited": "happy", ...}; labels that it does '
        "not name are dropped",
        both_stages=True,
    )
    only: dict = option(
        {},
        'JSON that selects utterances by column: {"style": "improvised"} or {"intensity": "strong"}',
        both_stages=True,
    )
    test_corpus: Corpus | None = option(
        None, "second corpus to test on; the first one then trains and validates", both_stages=True
    )
    test_data_dir: str | None = option(
        None, "directory of the test corpus", is_path=True, may_change=True, both_stages=True
    )
    test_hub_options: dict = option({}, "JSON like --hub_options, for the test corpus", both_stages=True)
    test_label_map: dict = option(
        {}, "JSON like --label_map, for the test corpus; labels that both corpora share are kept", both_stages=True
    )
    protocol: Literal["published", "speaker_folds", "leave_one_speaker_out", "leave_one_session_out"] = option(
        "published",
        "how speakers are split: published (six folds on RAVDESS, five on CREMA-D, one for each session on IEMOCAP, "
        "the split column where there is one, otherwise speaker_folds), or another protocol",
        both_stages=True,
    )
    fold: int = option(1, "fold that is the test set, counted from 1", minimum=1, both_stages=True, per_cell=True)
    num_folds: int = option(5, "number of folds of the protocol speaker_folds", "ours", minimum=2, both_stages=True)
    num_validation_speakers: int | None = option(
        None, "training speakers held out for validation; none takes about a fifth", "ours", minimum=1, both_stages=True
    )
    split_seed: int = option(0, "seed of every random choice of speakers", minimum=0, both_stages=True)
    trim_db: float | None = option(
        None, "trim leading and trailing audio this many dB below the peak; none keeps it", "ours", minimum=1
    )
    speed_factors: list[float] = option(
        [1.0], "speeds of training utterances, one drawn each time an utterance is read", "ours", minimum=0.1
    )
    pitch_steps: list[float] = option(
        [0.0], "pitch shifts of training utterances in semitones, one drawn each time an utterance is read", "ours"
    )
    noise_snrs: list[float] = option(
        [],
        "signal-to-noise ratios in dB of white noise added to training utterances, one drawn each time; none adds none",
        "ours",
    )
    mix_probability: float = option(
        0.0,
        "share of training utterances mixed with another one of the batch, 5 dB below to 10 dB above it; labels are "
        "divided by energy and coverage (Wang et al. 2025)",
        "ours",
        minimum=0,
        maximum=1,
    )
    max_duration: float | None = option(
        None,
        "longest training utterance in seconds; longer ones are cut to their middle, evaluation is never cut",
        "ours",
        minimum=0.1,
    )
    bucket_batches: int = option(
        16,
        "batches in a bucket whose utterances are sorted by duration; 1 draws batches at random and pads more",
        "ours",
        minimum=1,
        formerly="duration_pool",
    )
    cache_audio: bool = option(
        True,
        "keep decoded utterances in memory: 64 kB a second of audio, for each variant, in each process that reads it",
        may_change=True,
    )
    cache_features: bool = option(
        True,
        "run the frozen convolutional feature encoder once and cache its output on disk until the run is done: 0.1 MB "
        "a second of audio, for each variant",
        may_change=True,
        formerly="keep_features",
    )
    feature_cache_dir: str | None = option(
        None,
        "permanent feature cache for runs that share recordings and encoder; none means temporary OUTPUT_DIR/features",
        is_path=True,
        may_change=True,
        formerly="features_dir",
    )


@dataclass(kw_only=True)
class TrainerArguments:
    """trainer: optimisation, run and output"""

    output_dir: str = option(
        "outputs/demo", "folder that receives stage1 and stage2", is_path=True, may_change=True, both_stages=True
    )
    stage: Literal["1", "2", "both"] = option(
        "both", "stage to train, or both in turn", may_change=True, both_stages=True, per_cell=True
    )
    init_from: str | None = option(
        None,
        "folder of the stage-1 model that stage 2 starts from; none means OUTPUT_DIR/stage1",
        is_path=True,
        may_change=True,
        both_stages=True,
        per_cell=True,
    )
    init_classifier: Literal["new", "stage1"] = option(
        "new", "classifier that stage 2 starts with: a new one, or that of stage 1", "ours"
    )
    num_epochs: float = option(10.0, "passes over the training utterances", "ours", minimum=0.01)
    max_steps: int = option(-1, "number of updates to stop after; -1 trains for --num_epochs", minimum=-1)
    batch_size: int = option(16, "utterances in a batch, summed over all processes", "ours", minimum=1)
    eval_batch_size: int = option(
        32, "utterances in an evaluation batch; scores do not depend on it", minimum=1, may_change=True
    )
    gradient_accumulation_steps: int = option(1, "batches accumulated into one update", "ours", minimum=1)
    learning_rate: float = option(2e-5, "learning rate of the encoder", "ours", minimum=0)
    pooling_learning_rate: float = option(1e-4, "learning rate of the pooling", "ours", minimum=0)
    classifier_learning_rate: float = option(1e-4, "learning rate of the classifier", "ours", minimum=0)
    weight_decay: float = option(
        0.01, "weight decay of AdamW; biases, norms and the CLS vector have none", "ours", minimum=0
    )
    warmup_ratio: float = option(
        0.1, "share of the updates in which the learning rates warm up", "ours", minimum=0, below=1
    )
    lr_scheduler: Literal["linear", "cosine", "constant_with_warmup"] = option(
        "linear", "schedule of the learning rates after warm-up", "ours"
    )
    max_grad_norm: float = option(1.0, "norm to which gradients are clipped", "ours", minimum=0)
    ema_decay: float = option(
        0.0,
        "decay of an exponential moving average (EMA) of the weights, which is then evaluated and saved; 0.998 spans "
        "about 500 updates, 0 is off",
        "ours",
        minimum=0,
        below=1,
        formerly="averaging",
    )
    seed: int = option(
        0, "seed of weight initialisation, batch order, dropout and SpecAugment", minimum=0, per_cell=True
    )
    bf16: bool = option(False, "train in bfloat16 mixed precision", "ours")
    activation_checkpointing: bool = option(
        False, "recompute activations in the backward pass, which saves memory and takes time"
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] | None = option(
        None, "attention implementation of the encoder; none takes sdpa where the encoder has it", may_change=True
    )
    num_workers: int = option(0, "processes that read audio, for each training process", minimum=0, may_change=True)
    use_cpu: bool = option(False, "train on the CPU even if there is a GPU", may_change=True, both_stages=True)
    logging_steps: int = option(10, "updates between two logged training losses", minimum=1, may_change=True)
    tensorboard: bool = option(False, "write TensorBoard logs into the stage folder", may_change=True)
    watch_test: bool = option(
        False,
        "also score the test set after each epoch, to report what selecting on it would gain; it never selects",
        may_change=True,
    )
    training_arguments: dict = option(
        {},
        'JSON of further transformers.TrainingArguments: {"report_to": "wandb", "optim": "adafactor", "fp16": true}',
    )
    overwrite: bool = option(
        False, "train from scratch, replacing the results and checkpoints there", may_change=True, per_cell=True
    )
    push_to_hub: str | None = option(
        None,
        "Hub repository, such as user/ser-align, that receives the last trained stage; a new one is private",
        may_change=True,
        both_stages=True,
        per_cell=True,
    )
    hub_public: bool = option(
        False,
        "make a new repository of --push_to_hub public; an existing one keeps its visibility",
        may_change=True,
        both_stages=True,
    )


@dataclass
class Arguments:
    """All options of one stage."""

    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    trainer: TrainerArguments = field(default_factory=TrainerArguments)

    def flat(self) -> dict[str, Any]:
        return {**asdict(self.model), **asdict(self.data), **asdict(self.trainer)}

    def without_paths(self) -> dict[str, Any]:
        """What is published: no place on one person's disk; a local encoder or configuration file by its name alone."""
        values = {name: value for name, value in self.flat().items() if name not in PATHS}
        if self.model.encoder is not None and Path(self.model.encoder).is_dir():
            values["encoder"] = Path(self.model.encoder).resolve().name
        values["training_arguments"] = {
            name: Path(value).name if isinstance(value, str) and Path(value).exists() else value
            for name, value in self.trainer.training_arguments.items()
        }
        return values


GROUPS = (ModelArguments, DataArguments, TrainerArguments)
OPTIONS: dict[str, Field] = {f.name: f for group in GROUPS for f in fields(group)}
FORMER_NAMES = {f.metadata["formerly"]: name for name, f in OPTIONS.items() if f.metadata["formerly"]}


def find_options(fact: str) -> tuple[str, ...]:
    """The options of which this fact holds: `is_path`, `may_change`, `both_stages` or `per_cell`."""
    return tuple(name for name, f in OPTIONS.items() if f.metadata[fact])


PATHS = find_options("is_path")
FREE_TO_CHANGE = find_options("may_change")
WHOLE_RUN = find_options("both_stages")
CELL_OPTIONS = find_options("per_cell")


def option_help(name: str) -> str:
    """What an option is, as --help says it."""
    return OPTIONS[name].metadata["help"]


def option_source(name: str, values: list[Any]) -> str:
    """Who chose these values of an option: `paper`, `not the paper's` where the paper states another one, or `ours`."""
    if OPTIONS[name].metadata["source"] != "paper":
        return "ours"
    return "paper" if all(value == OPTIONS[name].default for value in values) else "not the paper's"


def use_current_names(record: dict[str, Any]) -> dict[str, Any]:
    """The options that a run of an earlier release recorded, under the names that they have now."""
    return {FORMER_NAMES.get(name, name): value for name, value in record.items()}


# What a record of a run holds beside its options, and what a difference there means.
RECORDED = {"rows": "other utterances or another split", "stage1": "another stage 1"}


def first_difference(earlier: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first option, of those that decide the outcome, in which two records of a run differ, and how many more do.

    A record holds the options of a run and may hold more. An option that is newer than the earlier record had no
    effect then, as its default has none; one that has been renamed is compared under its new name.
    """
    earlier = {**Arguments().flat(), **use_current_names(earlier)}
    changed = [name for name in now if name not in FREE_TO_CHANGE and earlier.get(name) != now[name]]
    if not changed:
        return None
    name = changed[0]
    what = RECORDED.get(name, f"{name}={earlier.get(name)!r}, now it is {now[name]!r}")
    return what + (f" (and {len(changed) - 1} more differ)" if changed[1:] else "")
