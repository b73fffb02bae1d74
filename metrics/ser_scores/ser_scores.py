"""UA, WA and macro-F1 with the confusion matrix, as a local module of the evaluate library.

`evaluate.load("metrics/ser_scores")` needs no network.
"""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix, f1_score

_DESCRIPTION = """
UA (unweighted accuracy, also UAR) is the mean of the per-class recalls, so every class has the same weight.
WA (weighted accuracy) is the fraction of correct predictions. UA and macro-F1 ignore classes without a reference.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of int): predicted class indices.
    references (list of int): true class indices.
    num_classes (int, optional): size of the confusion matrix; defaults to the largest index + 1.
Returns:
    ua, wa, macro_f1 (float, 0 to 1), confusion_matrix (list of lists of int, row true, column predicted).
Example:
    >>> scores = evaluate.load("metrics/ser_scores").compute(predictions=[0, 1, 1, 1], references=[0, 0, 1, 1])
    >>> scores["ua"], scores["wa"]
    (0.75, 0.75)
"""

_CITATION = """
@inproceedings{schuller2009interspeech,
  title={The INTERSPEECH 2009 Emotion Challenge},
  author={Schuller, Bj{\\"o}rn and Steidl, Stefan and Batliner, Anton},
  booktitle={Interspeech},
  year={2009}
}
"""


class SERScores(evaluate.Metric):
    """UA, WA, macro-F1 and confusion matrix from class indices."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")}),
        )

    def _compute(self, predictions: list[int], references: list[int], num_classes: int | None = None) -> dict:
        size = num_classes or max(*predictions, *references) + 1
        matrix = confusion_matrix(references, predictions, labels=range(size))
        present = np.unique(references)
        recall = matrix.diagonal()[present] / matrix.sum(axis=1)[present]
        return {
            "ua": float(recall.mean()),
            "wa": float(matrix.trace() / matrix.sum()),
            "macro_f1": float(f1_score(references, predictions, labels=present, average="macro", zero_division=0)),
            "confusion_matrix": matrix.tolist(),
        }
