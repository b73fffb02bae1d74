"""The options of a run, each declared once with its default, range and meaning.

Those of the model are in fields_ser_align.py; others are in trainer_options.py and augmentation_options.py.

Imports nothing heavy, so that `python train.py --help` is instant.
"""

import typing
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from fields_ser_align import SERAlignFields
from options_ser_align import option, split_hint
from recipe.augmentation_options import AugmentationFields
from recipe.conversion_options import ConversionFields
from recipe.trainer_options import TrainerArguments


@dataclass(kw_only=True)
class ModelArguments(SERAlignFields):
    """model: the encoder, the pooling of stage 2 and the losses"""

    encoder: str | None = option(
        "facebook/wav2vec2-base",
        "pretrained speech encoder: a Hub name or a folder; none trains the encoder of --encoder_config from scratch",
        "paper",
    )
    stage1_pooling: Literal["attentive", "self_attention", "cls", "mean", "max", "flam", "style"] = option(
        "attentive",
        "pooling of stage 1, as in --pooling; with --stage 1, that of a system that is trained in one stage",
        "paper",
    )
    class_weights: dict[str, float] | Literal["balanced"] | None = option(
        None,
        "weights of the classes in the cross-entropy, KL and the focal loss: balanced (in inverse proportion to the "
        "training utterances of each class), or JSON, "
        '{"angry": 2, "sad": 1.5}, where a class that is not listed has 1; none weights none',
        "ours",
        above=0,
        choices=("balanced",),
    )
    encoder_config: dict = option(
        {},
        "encoder settings to override, as JSON; with --encoder none, the full encoder configuration with model_type",
        "ours",
    )
    text_encoder: str | None = option(
        None,
        "pretrained text encoder for what is said, frozen or tuned: a Hub name or a folder, such as "
        "sentence-transformers/all-MiniLM-L6-v2; none hears the voice alone",
        "ours",
    )
    lora_rank: int = option(
        0,
        "rank of LoRA adapters (Hu et al. 2022), which are trained in place of the encoder's own weights; they are "
        "merged into the saved model; 0 is off",
        "ours",
        minimum=0,
    )
    lora_alpha: float = option(16.0, "scale of the LoRA adapters, divided by their rank", "ours", above=0)
    lora_targets: list[str] = option(
        [],
        "linear layers with LoRA adapters, such as q_proj v_proj fc1; none takes query and value of the attention",
        "ours",
    )


# fmt: off
Corpus = Literal[
    "demo", "folder", "hub",
    "iemocap", "cremad", "ravdess", "emodb", "nemo", "savee", "tess", "esd", "meld", "msp_podcast", "urdu", "em2ldl",
]
# fmt: on
Protocol = Literal[
    "published",
    "speaker_folds",
    "leave_one_speaker_out",
    "leave_one_session_out",
    "leave_one_group_out",
    "leave_one_corpus_out",
    "cross_corpus",
    "shared_speakers",
]
SHARED: Protocol = "shared_speakers"  # draws utterances instead of speakers


@dataclass(kw_only=True)
class DataArguments(AugmentationFields, ConversionFields):
    """data: corpus, split and audio"""

    corpus: Corpus = option(
        "demo",
        "corpus to train on: demo (synthetic, generated), folder (your own recordings), hub (a dataset on the Hugging "
        "Face Hub), or a published corpus in its official layout",
        both_stages=True,
    )
    data_dir: str | None = option(
        None,
        "directory of the corpus; with --corpus hub, the name or folder of a dataset; the demo corpus is generated in "
        "data/demo by default",
        is_path=True,
        may_change=True,
        both_stages=True,
    )
    corpora: list[dict] = option(
        [],
        "several corpora to train and test on, as a list of entries (JSON on the command line): corpus, use (all, "
        "train, train_validation or test; all by default), name (for folder and hub), and any of data_dir, label_map, "
        "only, protocol, fold, num_folds, num_validation_speakers, split_seed, hub_options, partial_corpus; what an "
        "entry does not set is that of the run",
        both_stages=True,
    )
    data_dirs: dict[str, str] = option(
        {},
        'directory of each of the --corpora, as JSON: {"ravdess": "RAVDESS", "emodb": "EMODB"}; of a folder corpus, it '
        "may be a CSV file; without one, a corpus is in the folder of its name in --data_dir",
        is_path=True,
        may_change=True,
        both_stages=True,
    )
    common_labels: bool = option(
        False,
        "with --corpora, drop labels that no training corpus or no test corpus has; --test_corpus always drops them",
        both_stages=True,
    )
    corpus_temperature: float = option(
        1.0,
        "exponent of the corpus sizes from which utterances are drawn in training (Conneau et al. 2020): 1 draws each "
        "utterance once per epoch, 0 draws equally many from each corpus",
        "ours",
        minimum=0,
        maximum=1,
    )
    partial_corpus: bool = option(False, "accept a published corpus with missing utterances", both_stages=True)
    max_broken_share: float = option(
        0.01,
        "largest share of unreadable, damaged or silent audio files to drop with a warning; with more, the run stops",
        "ours",
        minimum=0,
        maximum=1,
        may_change=True,
        both_stages=True,
    )
    csv: str | None = option(
        None,
        "CSV file for --corpus folder, with the columns path and label, and optionally speaker, split, start and end; "
        "with --targets distribution, also one for each class",
        is_path=True,
        may_change=True,
        both_stages=True,
    )
    allow_outside_paths: bool = option(
        False,
        "allow --corpus folder and hub to read files outside the corpus directory, through absolute paths, '..', links "
        "or URLs; a file list that you do not trust could then name any file on this machine",
        may_change=True,
        both_stages=True,
    )
    transcripts: str | None = option(
        None,
        "JSON Lines of predict.py --transcribe on the recordings of the corpus; their words, with times, replace those "
        "of the corpus",
        is_path=True,
        may_change=True,
        both_stages=True,
    )
    hub_options: dict = option(
        {},
        "settings of --corpus hub, as JSON: audio_column [audio], label_column [label], speaker_column, "
        "start_column, end_column, text_column, words_column, config, split, streaming, limit",
        both_stages=True,
    )
    targets: Literal["labels", "distribution", "dimensions", "labels_and_dimensions"] = option(
        "labels",
        "what the model learns of an utterance: its label; the distribution of the votes for it, where the class with "
        "the most votes, the first of those that tie, is its label; the numbers of --dimensions; or these and the "
        "label",
        "ours",
        both_stages=True,
    )
    dimensions: dict[str, list[float]] = option(
        {},
        "with --targets dimensions, columns of numbers, each with the lowest and the highest value of its scale, as "
        'JSON: {"valence": [1, 5], "arousal": [1, 5]}',
        both_stages=True,
    )
    dimension_map: dict[str, list[float]] = option(
        {},
        "with --targets dimensions, values of each label, in the order of --dimensions, in place of ratings, as JSON: "
        '{"angry": [-0.5, 0.6], "sad": [-0.6, -0.3]}; labels that are not listed are dropped',
        both_stages=True,
    )
    distribution_columns: list[str] = option(
        [],
        "with --targets distribution, columns of a --csv or of a Hub dataset with the votes or share of each class, "
        "such as angry happy sad; none takes those of the CSV named like its labels",
        both_stages=True,
    )
    label_map: dict[str, str | None] = option(
        {},
        'how to merge, rename or drop labels, as JSON: {"happy": "happy", "excited": "happy", ...}; labels that are '
        "not listed are dropped",
        both_stages=True,
    )
    only: dict[str, Any] = option(
        {},
        'utterances to select by column, as JSON: {"style": "improvised"} or {"intensity": "strong"}',
        both_stages=True,
    )
    test_corpus: Corpus | None = option(
        None, "second corpus, used only for testing; --corpus then trains and validates", both_stages=True
    )
    test_data_dir: str | None = option(
        None, "directory of the corpus given as --test_corpus", is_path=True, may_change=True, both_stages=True
    )
    test_hub_options: dict = option({}, "settings of --test_corpus hub, as JSON; see --hub_options", both_stages=True)
    test_label_map: dict[str, str | None] = option(
        {},
        "how to merge, rename or drop labels of --test_corpus, as JSON; only labels that both corpora share are kept",
        both_stages=True,
    )
    protocol: Protocol = option(
        "published",
        "how speakers are split; published means the split column if the corpus has one, six folds on RAVDESS, five on "
        "CREMA-D, one per session on IEMOCAP, and speaker_folds on any other corpus; with --corpora, "
        "leave_one_corpus_out tests one corpus per fold and trains on the others, and cross_corpus adds one fold per "
        "corpus that trains on it alone, then one with the second fold of each, and so on; shared_speakers draws folds "
        "of utterances instead of speakers, to measure what known voices gain; every output says so",
        both_stages=True,
    )
    group_column: str | None = option(
        None,
        "column whose values --protocol leave_one_group_out tests in turn, such as gender or age_class",
        both_stages=True,
    )
    gap_columns: list[str] = option(
        [],
        "further columns, such as age_class or style, whose values are groups: TPR gap and DP gap between them are "
        "reported, as between genders",
        both_stages=True,
    )
    fold: int = option(1, "fold to test on, counted from 1", minimum=1, both_stages=True, per_cell=True)
    num_folds: int = option(
        5, "number of folds of --protocol speaker_folds and shared_speakers", "ours", minimum=2, both_stages=True
    )
    num_validation_speakers: int | None = option(
        None,
        "number of training speakers held out for validation; none means about a fifth",
        "ours",
        minimum=1,
        both_stages=True,
    )
    split_seed: int = option(0, "random seed for splitting the speakers", minimum=0, both_stages=True)
    trim_db: float | None = option(
        30.0,
        "trim leading and trailing audio that is noise, or this many dB below the loudest moment; none disables it",
        "ours",
        minimum=1,
    )
    max_duration: float | None = option(
        None,
        "maximum duration of training utterances in seconds; longer ones are cropped to their middle, evaluation "
        "utterances never are",
        "ours",
        minimum=0.1,
    )
    bucket_batches: int = option(
        16,
        "batches per bucket, in which utterances are sorted by duration; 1 draws batches at random, with more padding",
        "ours",
        minimum=1,
        formerly="duration_pool",
    )
    cache_audio: bool = option(
        True,
        "keep decoded audio in memory: 64 kB per second of audio, for each augmented variant, in each process that "
        "reads it",
        may_change=True,
    )
    cache_features: bool = option(
        True,
        "run the frozen part of the encoder once and cache its output on disk until the run ends: 0.1 MB per second of "
        "audio for the convolutions of wav2vec 2.0, for each augmented variant",
        may_change=True,
        formerly="keep_features",
    )
    feature_cache_dir: str | None = option(
        None,
        "permanent feature cache, for runs that share recordings and encoder; none uses OUTPUT_DIR/features and "
        "deletes it after the run, and the runs of an experiment share one until they are finished",
        is_path=True,
        may_change=True,
        formerly="features_dir",
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
        """The options to publish: without paths, and with only the name of a local encoder or configuration file."""
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


# Mappings whose keys are names, such as labels: what a YAML file calls `no` is not false.
NAMED = tuple(name for name, f in OPTIONS.items() if typing.get_origin(split_hint(f.type)[0]) is dict)


def find_options(fact: str) -> tuple[str, ...]:
    """Find the options with this property: `is_path`, `may_change`, `both_stages` or `per_cell`."""
    return tuple(name for name, f in OPTIONS.items() if f.metadata[fact])


PATHS = find_options("is_path")
FREE_TO_CHANGE = find_options("may_change")
WHOLE_RUN = find_options("both_stages")
CELL_OPTIONS = find_options("per_cell")


def option_help(name: str) -> str:
    """The meaning of an option, as in --help."""
    return OPTIONS[name].metadata["help"]


def option_source(name: str, values: list[Any]) -> str:
    """The source of an option's values: `paper`, `not the paper's` if the paper states another value, or `ours`."""
    if OPTIONS[name].metadata["source"] != "paper":
        return "ours"
    return "paper" if all(value == OPTIONS[name].default for value in values) else "not the paper's"
