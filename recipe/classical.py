"""Classical models: acoustic features of each utterance, and a scikit-learn pipeline that is fitted to them.

The utterances, their split, the predictions and the scores are those of the networks, so that reports compare both.
"""

import time
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_sample_weight
from tqdm.auto import tqdm

from core.acoustic import (
    OPENSMILE_LICENCE,
    AcousticFeatures,
    build_features,
    check_opensmile,
    choose_last_layer,
    read_encoder_config,
)
from core.classical import ClassicalModel, compute_logits, import_skops, load_classical
from core.errors import InputError, warn, writing
from core.json_files import write_lines
from core.model_files import CARD as CARD_FILE
from core.multiblock import Embedder
from recipe.acoustic import compute_features, list_variants
from recipe.augmentation import Variant, check_augmentation
from recipe.calibration import fit_temperature, fit_unsure_threshold
from recipe.classical_options import ClassicalArguments, ClassicalFields
from recipe.data import read_rows, split_rows
from recipe.embedding import fit_embeddings
from recipe.entries import name_run
from recipe.model_card import list_licenses
from recipe.results import describe_data, describe_unseen, library_versions, write_results
from recipe.run import quiet_libraries, split_lines
from recipe.scoring import build_lines, score_file
from recipe.stage_folder import describe_rows, open_stage_folder, read_finished
from recipe.statistics import compute_scores

MOST_STEPS = 5000  # of the optimisers of the linear models; those of the networks stop earlier
CLASSIFIER_NAMES = {
    "lr": "Logistic regression",
    "mlp": "Multilayer perceptron",
    "svm": "Linear support vector machine",
    "edrl_mea": "EDRL-MEA (encoders of each class and of all, aligned by multiblock PLS, and logistic regression)",
    "adversarial": "Logistic regression on domain-adversarial embeddings",
}
FEATURE_NAMES = {
    "egemaps": "functionals of openSMILE (eGeMAPSv02)",
    "compare": "functionals of openSMILE (ComParE 2016)",
    "encoder": "means and standard deviations of frozen layers",
}
NUM_EPOCHS = 200  # of the multilayer perceptron


def run_classical(args: ClassicalArguments) -> None:
    """Read the corpus, then fit, score and save a model."""
    quiet_libraries()
    check_classical(args)
    fit_model(args, *read_rows(args.run))
    PartialState().print(
        f"\nThe model is in {args.output_dir}. To use it:\n\n  python predict.py speech.wav --model {args.output_dir}"
    )


def check_classical(args: ClassicalArguments) -> None:
    """Raise InputError if a model cannot be fitted, before its corpus is read."""
    PartialState(cpu=args.run.trainer.use_cpu)  # the first PartialState of a process sets the device for all later ones
    import_skops()
    if args.run.data.targets != "labels":
        targets = args.run.data.targets
        raise InputError(f"--targets {targets} is for networks: a classical model learns labels; remove it")
    check_augment(args)
    encoder = args.run.model.encoder
    if args.own.features != "encoder":
        check_opensmile(args.own.features)
    elif encoder is None:
        raise InputError("--features encoder needs a pretrained --encoder, and --encoder none is an untrained one")
    else:
        config = read_encoder_config(encoder, args.run.model.encoder_config)
        choose_last_layer(config, encoder, args.own.first_layer, args.own.last_layer)


def check_augment(args: ClassicalArguments) -> None:
    """Raise InputError if --augment has nothing to add, or training utterances are to be mixed."""
    if not args.own.augment:
        return
    check_augmentation(args.run.data)
    if args.run.data.mix_probability > 0:
        raise InputError("--mix_probability is for networks: set it to 0, or leave out --augment")
    if list_variants(args, "train") == [Variant()]:
        raise InputError("--augment adds nothing: give --degrade_probability 0.5, or --speed_factors 0.9 1 1.1")


def fit_model(args: ClassicalArguments, rows: Dataset, num_broken: int) -> None:
    """Split the rows, fit a model, score it and write its folder, unless an earlier run has done so.

    The main process does all of it.
    """
    state, folder, data = PartialState(), args.output_dir, args.run.data
    if state.is_main_process:
        split = split_rows(data, rows)
        print("\n".join(split_lines(name_run(data), split)))
        record = {**args.flat(), **describe_rows(split)}
        results = read_finished(folder, record, args.run.trainer.overwrite)
        if results is not None:
            print(f"\nThe model is already finished: {folder}. To fit it again, add --overwrite.")
        else:
            start = time.perf_counter()
            open_stage_folder(folder, record, args.run.trainer.overwrite)
            features = build_features(describe_features(args), state.device)
            arrays = compute_features(features, split, args)
            classifier, history = choose_classifier(args, arrays, split)
            results = describe_data(args.run, split, num_broken) | describe_classical(args, classifier, history)
            scores = save_and_score(args, classifier, features, arrays, split)
            results |= {
                "labels": split["train"].features["label"].names,
                "scores": {"best": scores, "last": scores},
                "seconds": time.perf_counter() - start,
                "device": state.device.type,
            }
            write_card(args, results)
            write_results(folder, results)
        print("\n".join(classical_lines(results)))
    state.wait_for_everyone()


def describe_features(args: ClassicalArguments) -> dict[str, Any]:
    """The settings of the features, for `build_features`."""
    encoder = {"encoder": args.run.model.encoder, "encoder_config": args.run.model.encoder_config}
    return {
        "features": args.own.features,
        **encoder,
        "first_layer": args.own.first_layer,
        "last_layer": args.own.last_layer,
    }


def choose_classifier(
    args: ClassicalArguments, arrays: dict[str, np.ndarray], split: DatasetDict
) -> tuple[Pipeline, list[dict[str, float]]]:
    """Fit classifiers with each C, and with each number of components or weight of the reversed gradient, on the
    training set; choose the one with the best UA on the validation set.

    Of several, the first one wins: with the fewest components or the smallest weight, and the strongest penalty.

    Returns:
        the classifier, and of each the `C`, what else it was chosen by, and the `validation_ua`.
    """
    own, seed = args.own, args.run.trainer.seed
    fitted, history = [], []
    num_variants = len(arrays["train"]) // len(split["train"])
    labels = np.tile(split["train"]["label"][:], num_variants)
    domains = np.tile(number_domains(split["train"], own), num_variants)
    scaler = StandardScaler().fit(arrays["train"].astype(np.float64))
    scaled = scaler.transform(arrays["train"].astype(np.float64))
    for value, transformers in fit_embeddings(own, seed, scaled, labels, domains):
        steps = [("scaler", scaler), *transformers]
        for c in tqdm(sorted(own.c_values), desc=f"{own.classifier} by C", leave=False):
            fitted.append(fit_classifier(own, c, seed, arrays["train"], labels, steps))
            predicted = compute_logits(fitted[-1], arrays["validation"]).argmax(axis=1)
            confusion = confusion_matrix(split["validation"]["label"][:], predicted, labels=fitted[-1].classes_)
            history.append({"C": c, **value, "validation_ua": float(compute_scores(confusion.astype(float))["ua"])})
    best = int(np.argmax([line["validation_ua"] for line in history]))
    if own.classifier != "mlp" and count_steps(fitted[best]) >= MOST_STEPS:
        warn(f"{own.classifier} with C = {history[best]['C']:g} did not converge in {MOST_STEPS} steps")
    return fitted[best], history


def number_domains(rows: Dataset, own: ClassicalFields) -> np.ndarray:
    """The domain of each row that --classifier adversarial is not to tell apart, from 0.

    Raises:
        InputError: all are of one domain.
    """
    if own.classifier == "adversarial" and own.reversal_domain not in rows.column_names:
        raise InputError("--reversal_domain corpus needs several training corpora: give speaker, or --corpora")
    names = rows[own.reversal_domain if own.classifier == "adversarial" else "speaker"][:]
    if own.classifier == "adversarial" and len(set(names)) < 2:
        raise InputError(f"--classifier adversarial needs several domains, but all are of one {own.reversal_domain}")
    return np.unique(names, return_inverse=True)[1]


def fit_classifier(
    own: ClassicalFields,
    c: float,
    seed: int,
    features: np.ndarray,
    labels: np.ndarray,
    steps: list[tuple[str, Any]] | None = None,
) -> Pipeline:
    """Standardise features, (utterances, features), and fit a classifier to labels, (utterances,).

    Utterances are weighted so that every class weighs the same in total.

    C weighs the sum of the losses against half the squared weights, for each classifier: scikit-learn's perceptron
    takes 1 / C.

    Args:
        steps: fitted transformers to use in place of standardisation.
    """
    classifier: Any
    if own.classifier == "svm":
        classifier = LinearSVC(C=c, max_iter=MOST_STEPS, random_state=seed)
    elif own.classifier == "mlp":
        classifier = MLPClassifier((own.hidden_size,), alpha=1 / c, max_iter=NUM_EPOCHS, random_state=seed)
    else:
        classifier = LogisticRegression(C=c, max_iter=MOST_STEPS)
    # In place of class_weight, by which an SVM of one class against all would weigh the one and none of the others.
    weights = compute_sample_weight("balanced", labels)
    features = features.astype(np.float64)
    front = Pipeline(steps or [("scaler", StandardScaler().fit(features))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `choose_classifier` says so of the chosen one
        classifier.fit(front.transform(features), labels, sample_weight=weights)
    if own.classifier == "mlp":
        del classifier._optimizer  # training alone needs it, and it is more than data
    return Pipeline([*front.steps, ("classifier", classifier)])


def count_steps(classifier: Pipeline) -> int:
    """The steps of the optimiser; of the perceptron, its epochs."""
    return int(np.max(classifier[-1].n_iter_))


def count_parameters(classifier: Pipeline) -> int:
    """The number of weights and biases that scores follow from, without the standardisation of features."""
    last = classifier[-1]
    learned = [*last.coefs_, *last.intercepts_] if isinstance(last, MLPClassifier) else [last.coef_, last.intercept_]
    for step in classifier[1:-1]:
        learned += [step.weight, step.bias] if isinstance(step, Embedder) else [step.rotation_]
    return int(sum(each.size for each in learned))


def describe_classical(args: ClassicalArguments, classifier: Pipeline, history: list[dict[str, Any]]) -> dict[str, Any]:
    """The entries of results.json on the model.

    A classical model has no epochs, and its last weights are its best ones.
    """
    best = max(history, key=lambda line: line["validation_ua"])
    names = ("scikit-learn", "skops", *(["opensmile"] if args.own.features != "encoder" else []))
    return {
        "arguments": args.without_paths(),
        "stage": None,
        "classical": {
            "features": args.own.features,
            "classifier": args.own.classifier,
            **{name: value for name, value in best.items() if name != "validation_ua"},
            "num_features": int(classifier[0].n_features_in_),
            "steps": count_steps(classifier),
        },
        "class_weights": None,
        "num_parameters": count_parameters(classifier),
        "versions": {**library_versions(), **{name: version(name) for name in names}},
        "epochs": {"best": None, "last": None},
        "history": history,
    }


def save_and_score(
    args: ClassicalArguments,
    classifier: Pipeline,
    features: AcousticFeatures,
    arrays: dict[str, np.ndarray],
    split: DatasetDict,
) -> dict[str, Any]:
    """Write the folder of a model and its predictions.jsonl; return its scores, which are those of the saved model.

    The temperature of its probabilities and the score below which an answer is unsure are fitted on the validation set.
    """
    folder = args.output_dir
    settings = {
        "features": features.settings,
        "classifier": args.own.classifier,
        "trim_db": args.run.data.trim_db,
        "labels": split["train"].features["label"].names,
        "calibration_temperature": 1.0,
        "unsure_below": 0.0,
    }
    model = ClassicalModel(classifier, settings)
    settings["calibration_temperature"] = fit_temperature(predict(model, arrays, split, "validation"))
    validation = predict(model, arrays, split, "validation")
    settings["unsure_below"] = fit_unsure_threshold(validation, args.run.trainer.sure_accuracy)
    model.save(folder)
    saved = load_classical(str(folder))
    lines = [{"split": part, **line} for part in ("validation", "test") for line in predict(saved, arrays, split, part)]
    write_lines(folder / "predictions.jsonl", lines)
    fitted = {"temperature": settings["calibration_temperature"], "unsure_below": settings["unsure_below"]}
    return {**score_file(folder / "predictions.jsonl"), **fitted}


def predict(
    model: ClassicalModel, arrays: dict[str, np.ndarray], split: DatasetDict, part: str
) -> list[dict[str, Any]]:
    """The lines of predictions.jsonl of one part of a split, without its name."""
    return build_lines(split[part], dict(zip(split[part]["id"][:], model.score(arrays[part]).tolist())))


def classical_lines(results: dict[str, Any]) -> list[str]:
    """Format the scores of a model for the terminal."""
    model, scores = results["classical"], results["scores"]["best"]
    head = f"{model['classifier']} on {model['num_features']} {model['features']} features, C = {model['C']:g}"
    lines = [f"{head}, took {results['seconds']:.0f} s. Scores on {describe_unseen(results)}:"]
    lines.append(f"  {'':14}{'UA':>8}{'WA':>8}")
    for part in ("validation", "test"):
        lines.append(f"  {part:14}{scores[part]['ua']:>8.3f}{scores[part]['wa']:>8.3f}")
        for corpus, of_one in scores[part].get("corpora", {}).items():
            lines.append(f"    {corpus:12}{of_one['ua']:>8.3f}{of_one['wa']:>8.3f}")
    return lines


CARD = """---
license: {licence}
tags:
- speech-emotion-recognition
---

# A classical model of speech emotion recognition

{classifier} on {what}, fitted to {corpus}. UA on {unseen}: {ua:.1f} % ({chance:.1f} % by chance).
{terms}
    python predict.py speech.wav --model {folder}
"""


def write_card(args: ClassicalArguments, results: dict[str, Any]) -> None:
    """README.md of the folder, with the licence: that of the corpora, or openSMILE's."""
    licences = set(list_licenses(args.run.data).values())
    is_opensmile = args.own.features != "encoder"
    model, labels = results["classical"], results["labels"]
    card = CARD.format(
        licence="other" if is_opensmile or len(licences) != 1 else licences.pop(),
        classifier=CLASSIFIER_NAMES[args.own.classifier],
        what=f"{model['num_features']} {FEATURE_NAMES[args.own.features]}",
        corpus=results["corpus"],
        unseen=describe_unseen(results),
        ua=100 * results["scores"]["best"]["test"]["ua"],
        chance=100 / len(labels),
        terms=f"\n**Licence.** {OPENSMILE_LICENCE}.\n" if is_opensmile else "",
        folder=args.output_dir.name,
    )
    with writing(args.output_dir):
        (args.output_dir / CARD_FILE).write_text(card, encoding="utf-8")
