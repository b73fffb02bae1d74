"""Transformers of features that recipe/embedding.py fits: embeddings, and their alignment by multiblock PLS.

They hold arrays alone, so that a fitted pipeline is stored without pickle.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, TransformerMixin

NO_COVARIANCE = 1e-12  # share of the squared covariance with the response that is rounding


class Embedder(TransformerMixin, BaseEstimator):
    """One hidden layer, trained elsewhere: tanh(features @ weight + bias).

    Args:
        weight: (features, embeddings).
        bias: (embeddings,).
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        self.weight = weight
        self.bias = bias

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, features: np.ndarray, labels: np.ndarray | None = None) -> Self:
        """Nothing is left to fit."""
        return self

    def transform(self, features: np.ndarray) -> np.ndarray:
        """(utterances, features) to (utterances, embeddings)."""
        return np.tanh(features @ self.weight + self.bias)


class MultiblockPLS(TransformerMixin, BaseEstimator):
    """Multiblock partial least squares with deflation by super scores (Westerhuis, Kourti and MacGregor 1998).

    For each component, block b has the scores t_b = X_b w_b with |w_b| = 1, and the super score is t = sum of a_b t_b
    with |a| = 1; the weights maximise the covariance of t with a direction of the response. All blocks are then
    deflated by t. Columns are standardised, and each block is divided by the square root of its size, so that no block
    counts for its width.

    The super scores are those of PLS of all blocks side by side, with a_b w_b as the part of its weights in block b, so
    they are computed from covariance matrices alone (Lindgren, Geladi and Wold 1993).

    Args:
        blocks: the columns of each block; blocks may share columns.
        num_components: how many to compute; fewer if no more covary with the response.

    Attributes:
        mean_, scale_: (columns of all blocks,).
        rotation_: (columns of all blocks, components); super scores are the standardised blocks times it.
        block_weights_: (components, blocks), the a_b.
    """

    def __init__(self, blocks: Sequence[np.ndarray], num_components: int):
        self.blocks = blocks
        self.num_components = num_components

    def fit(self, embeddings: np.ndarray, response: np.ndarray) -> Self:
        """Fit to embeddings (utterances, columns) and a response (utterances, variables), which is centred."""
        sizes = [len(columns) for columns in self.blocks]
        joined = embeddings[:, np.concatenate(self.blocks)]
        deviation = joined.std(axis=0)
        self.mean_ = joined.mean(axis=0)
        self.scale_ = np.where(deviation > 0, deviation, 1.0) * np.sqrt(np.repeat(sizes, sizes))
        joined = (joined - self.mean_) / self.scale_
        covariance = joined.T @ joined
        shared = joined.T @ (response - response.mean(axis=0))
        shared = shared @ shared.T
        remaining, rotation, weights = np.eye(len(covariance)), [], []
        smallest = NO_COVARIANCE * np.trace(shared)
        for _ in range(self.num_components):
            weight = eigh(shared, subset_by_index=[len(shared) - 1] * 2)[1][:, 0]
            if weight @ shared @ weight <= smallest:
                break
            weights.append(weight)
            rotation.append(remaining @ weight)
            loading = covariance @ weight / (weight @ covariance @ weight)
            # X - t p' = X (1 - w p'), on both sides of the covariances.
            covariance, shared = (
                _deflate(_deflate(each, weight, loading).T, weight, loading) for each in (covariance, shared)
            )
            remaining = _deflate(remaining, weight, loading)
        self.rotation_ = np.array(rotation).T
        squares = np.add.reduceat(np.square(weights), np.cumsum([0, *sizes[:-1]]), axis=1)
        self.block_weights_ = np.sqrt(squares)
        return self

    def transform(self, embeddings: np.ndarray) -> np.ndarray:
        """The super scores (utterances, components) of embeddings (utterances, columns)."""
        joined = (embeddings[:, np.concatenate(self.blocks)] - self.mean_) / self.scale_
        return joined @ self.rotation_

    def keep(self, num_components: int) -> "MultiblockPLS":
        """The same with the first components alone, which do not depend on the others."""
        kept = MultiblockPLS(self.blocks, num_components)
        kept.mean_, kept.scale_ = self.mean_, self.scale_
        kept.rotation_ = self.rotation_[:, :num_components]
        kept.block_weights_ = self.block_weights_[:num_components]
        return kept


def _deflate(matrix: np.ndarray, weight: np.ndarray, loading: np.ndarray) -> np.ndarray:
    """A matrix times 1 - w p'."""
    return matrix - np.outer(matrix @ weight, loading)
