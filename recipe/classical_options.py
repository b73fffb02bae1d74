"""The options of a classical model, each declared once, and those of train.py that it has in common with a network.

Imports nothing heavy, so that `python baseline.py --help` is instant.
"""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from options_ser_align import option
from recipe.options import Arguments, DataArguments


@dataclass(kw_only=True)
class ClassicalFields:
    """baseline: acoustic features and the classical model that is fitted to them"""

    features: Literal["egemaps", "compare", "encoder"] = option(
        "egemaps",
        "acoustic features of an utterance: 88 or 6,373 functionals of openSMILE (eGeMAPSv02, ComParE 2016), or the "
        "mean and standard deviation over time of the layers of the frozen --encoder; openSMILE may not be used in a "
        "product without a commercial licence of audEERING",
        "ours",
    )
    classifier: Literal["lr", "mlp", "svm", "edrl_mea", "adversarial"] = option(
        "lr",
        "logistic regression, multilayer perceptron, or linear support vector machine (one class against all), on "
        "features standardised on training speakers, with balanced classes; or logistic regression on embeddings "
        "of them: edrl_mea (encoders of each class and of all, aligned by multiblock PLS) or adversarial (gradient "
        "reversal)",
        "ours",
    )
    c_values: list[float] = option(
        [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
        "inverse strengths of the L2 penalty to choose from: the one with the best UA on validation speakers",
        "ours",
        above=0,
    )
    augment: bool = option(
        False,
        "fit to augmented training utterances, too: as many as --degrade_probability, --degraded_variants, "
        "--speed_factors, --pitch_steps and --noise_snrs ask for",
        "ours",
    )
    hidden_size: int = option(256, "width of the hidden layer of --classifier mlp and adversarial", "ours", minimum=1)
    embedding_size: int = option(32, "width of each encoder of --classifier edrl_mea", "ours", minimum=1)
    num_embedding_epochs: int = option(
        30, "epochs of the encoders of --classifier edrl_mea and adversarial", "ours", minimum=1
    )
    disentangle_weight: float = option(
        1.0,
        "weight of the squared correlation between an encoder of one class and that of all, of --classifier edrl_mea",
        "ours",
        minimum=0,
    )
    num_components: list[int] = option(
        [8, 16, 32, 64],
        "numbers of components of --classifier edrl_mea to choose from on validation speakers",
        "ours",
        minimum=1,
    )
    response: Literal["features", "labels"] = option(
        "features",
        "what the components of --classifier edrl_mea covary with: the features themselves, or the labels",
        "paper",
    )
    reversal_weights: list[float] = option(
        [0.1, 0.3, 1.0],
        "weights of the reversed gradient of --classifier adversarial to choose from on validation speakers",
        "ours",
        minimum=0,
    )
    reversal_domain: Literal["speaker", "corpus"] = option(
        "speaker", "what --classifier adversarial is not to tell apart", "ours"
    )
    first_layer: int = option(
        1, "first layer of --features encoder, counted from 1; 0 is the input of layer 1", "ours", minimum=0
    )
    last_layer: int | None = option(
        None, "last layer of --features encoder; none means that of the encoder", "ours", minimum=1
    )


ACOUSTIC_CACHE = "acoustic_features"  # folder beside the outputs; it stays, since folds and models share what it holds
# The options of train.py that also have a meaning here. The others say how a network is trained, and on what audio.
DISTRIBUTIONS = ("targets", "distribution_columns")
ENCODER_OPTIONS = ("encoder", "encoder_config")
AUGMENTATIONS = (
    *("speed_factors", "pitch_steps", "noise_snrs"),
    *("degrade_probability", "degradations", "max_degradations", "degraded_variants"),
)  # with --augment
SHARED_OPTIONS = (
    *ENCODER_OPTIONS,
    *(each.name for each in fields(DataArguments) if each.metadata["both_stages"] and each.name not in DISTRIBUTIONS),
    *AUGMENTATIONS,
    *("trim_db", "feature_cache_dir", "output_dir", "seed", "sure_accuracy", "use_cpu", "overwrite"),
)


@dataclass
class ClassicalArguments:
    """All options of a classical model: its own, and those of train.py, of which `SHARED_OPTIONS` are used."""

    own: ClassicalFields = field(default_factory=ClassicalFields)
    run: Arguments = field(default_factory=Arguments)

    def flat(self) -> dict[str, Any]:
        """Every option that is used."""
        return self._select(self.run.flat())

    def without_paths(self) -> dict[str, Any]:
        """Those to publish, as in `Arguments`."""
        return self._select(self.run.without_paths())

    def _select(self, values: dict[str, Any]) -> dict[str, Any]:
        has_encoder = self.own.features == "encoder"
        unused = (*(() if has_encoder else ENCODER_OPTIONS), *(() if self.own.augment else AUGMENTATIONS))
        used = [name for name in SHARED_OPTIONS if name not in unused]
        return {name: values[name] for name in used if name in values} | asdict(self.own)

    @property
    def output_dir(self) -> Path:
        return Path(self.run.trainer.output_dir)
