"""Six distances and similarities between label distributions, as a local module of the evaluate library.

`evaluate.load("metrics/label_distribution")` needs no network.
"""

import datasets
import evaluate
import numpy as np
from scipy.special import rel_entr

_DESCRIPTION = """
How far predicted label distributions are from the true ones: each measure is the mean over utterances. Chebyshev,
Clark, Canberra and KL are distances (0 is best), cosine and intersection are similarities (1 is best). Clark and
Canberra weigh a class by how small its probabilities are, so a uniform guess can beat every model: do not select models
by them.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of lists of float): predicted probabilities of each class, which sum to 1.
    references (list of lists of float): true probabilities, such as shares of votes, which sum to 1.
Returns:
    chebyshev, the largest difference; clark, sqrt(sum((y - p)^2 / (y + p)^2)); canberra, sum(|y - p| / (y + p)), both
    without the classes that y and p give 0; kl, KL(y || p) in nats, infinite where p is 0 and y is not; cosine;
    intersection, sum(min(y, p)) (float).
Raises:
    ValueError: a distribution is negative or does not sum to 1.
Example:
    >>> scores = evaluate.load("metrics/label_distribution").compute(predictions=[[0.5, 0.5]], references=[[1.0, 0.0]])
    >>> scores["chebyshev"], scores["intersection"]
    (0.5, 0.5)
"""

_CITATION = """
@article{geng2016label,
  title={Label Distribution Learning},
  author={Geng, Xin},
  journal={IEEE Transactions on Knowledge and Data Engineering},
  volume={28},
  number={7},
  pages={1734--1748},
  year={2016}
}
"""

TOLERANCE = 1e-3  # of a sum: rounded probabilities


class LabelDistribution(evaluate.Metric):
    """Chebyshev, Clark, Canberra, KL, cosine and intersection of label distributions."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, predictions: list[list[float]], references: list[list[float]]) -> dict[str, float]:
        found, true = np.array(predictions, dtype=np.float64), np.array(references, dtype=np.float64)
        for name, rows in (("predictions", found), ("references", true)):
            _check_rows(name, rows)
        difference, total = np.abs(true - found), true + found
        ratio = np.divide(difference, total, out=np.zeros_like(total), where=total > 0)
        lengths = np.linalg.norm(true, axis=1) * np.linalg.norm(found, axis=1)
        each = {
            "chebyshev": difference.max(axis=1),
            "clark": np.sqrt(np.square(ratio).sum(axis=1)),
            "canberra": ratio.sum(axis=1),
            "kl": rel_entr(true, found).sum(axis=1),
            "cosine": (true * found).sum(axis=1) / lengths,
            "intersection": np.minimum(true, found).sum(axis=1),
        }
        return {name: float(values.mean()) for name, values in each.items()}


def _check_rows(name: str, rows: np.ndarray) -> None:
    wrong = np.flatnonzero((rows < 0).any(axis=1) | ~(np.abs(rows.sum(axis=1) - 1) <= TOLERANCE))
    if len(wrong):
        raise ValueError(
            f"{name}, row {wrong[0]}: {rows[wrong[0]].tolist()} is not a distribution ({len(wrong)} such rows in "
            "total): give probabilities that sum to 1"
        )
