"""Concordance, Pearson correlation and error of emotion dimensions, as a local module of the evaluate library.

`evaluate.load("metrics/concordance")` needs no network.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
How well predicted values of one dimension, such as arousal, agree with the true ones. The concordance correlation
coefficient (CCC) is 1 for equal values only: unlike Pearson's, it falls if the mean or the spread of the predictions is
wrong. A constant has a CCC of 0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of floats): predicted values.
    references (list of floats): true values, on the same scale.
Returns:
    ccc, 2 cov / (var + var + (difference of the means)^2), with moments over all values; pearson, not a number if the
    predictions or the references are constant; rmse, the root mean square error, on the scale of the values (float).
Example:
    >>> evaluate.load("metrics/concordance").compute(predictions=[1.0, 2.0, 3.0], references=[2.0, 3.0, 4.0])["ccc"]
    0.5714285714285714
"""

_CITATION = """
@article{lin1989concordance,
  title={A Concordance Correlation Coefficient to Evaluate Reproducibility},
  author={Lin, Lawrence I-Kuei},
  journal={Biometrics},
  volume={45},
  number={1},
  pages={255--268},
  year={1989}
}
"""


class Concordance(evaluate.Metric):
    """CCC, Pearson's correlation and RMSE of one dimension."""

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        found, true = np.array(predictions, dtype=np.float64), np.array(references, dtype=np.float64)
        difference = found.mean() - true.mean()
        covariance = ((found - found.mean()) * (true - true.mean())).mean()
        spread = found.var() + true.var() + difference**2
        is_constant = np.ptp(found) == 0 or np.ptp(true) == 0  # whose variance rounding may leave above 0
        deviations = found.std() * true.std()
        return {
            "ccc": float(2 * covariance / spread) if spread > 0 else 1.0,
            "pearson": float("nan") if is_constant else float(covariance / deviations),
            "rmse": float(np.sqrt(np.square(found - true).mean())),
        }
