"""Multiblock PLS: the same as scikit-learn for one block, and as the textbook's iteration for several."""

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression

from core.multiblock import MultiblockPLS

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(40, 4))
EMBEDDINGS = HIDDEN @ RNG.normal(size=(4, 9)) + RNG.normal(size=(40, 9)) * np.arange(1, 10)
RESPONSE = HIDDEN @ RNG.normal(size=(4, 6)) + RNG.normal(size=(40, 6)) + 3
BLOCKS = [np.array([0, 1, 2]), np.array([3, 4, 5, 6]), np.array([7, 8, 2])]  # the last shares a column with the first


def iterate_multiblock(blocks, response, num_components):
    """Super scores, block scores and their weights by the iteration of Westerhuis, Kourti and MacGregor (1998)."""
    blocks, response, found = [block.copy() for block in blocks], response.copy(), []
    for _ in range(num_components):
        u = response[:, 0]
        for _ in range(20_000):
            weights = [block.T @ u / (u @ u) for block in blocks]
            weights = [weight / np.linalg.norm(weight) for weight in weights]
            scores = np.stack([block @ weight for block, weight in zip(blocks, weights)], axis=1)
            super_weights = scores.T @ u / (u @ u)
            super_weights /= np.linalg.norm(super_weights)
            t = scores @ super_weights
            q = response.T @ t / (t @ t)
            before, u = u, response @ q / (q @ q)
            if np.linalg.norm(u - before) < 1e-13 * np.linalg.norm(u):
                break
        found.append((t, super_weights))
        blocks = [block - np.outer(t, block.T @ t / (t @ t)) for block in blocks]
        response = response - np.outer(t, response.T @ t / (t @ t))
    return np.stack([t for t, _ in found], axis=1), np.stack([weights for _, weights in found])


def align_signs(scores, reference):
    return scores * np.sign((scores * reference).sum(axis=0))


def test_one_block_is_pls_of_scikit_learn():
    fitted = MultiblockPLS([np.arange(9)], 5).fit(EMBEDDINGS, RESPONSE)
    scaled = (EMBEDDINGS - EMBEDDINGS.mean(axis=0)) / EMBEDDINGS.std(axis=0) / 3
    reference = PLSRegression(5, scale=False, max_iter=10_000, tol=1e-14).fit(scaled, RESPONSE)
    expected = reference.transform(scaled)
    np.testing.assert_allclose(
        align_signs(fitted.transform(EMBEDDINGS), expected), expected, atol=1e-6
    )  # it iterates until 1e-7
    np.testing.assert_allclose(fitted.block_weights_, 1)


def test_several_blocks_are_those_of_the_iteration():
    fitted = MultiblockPLS(BLOCKS, 4).fit(EMBEDDINGS, RESPONSE)
    standard = (EMBEDDINGS - EMBEDDINGS.mean(axis=0)) / EMBEDDINGS.std(axis=0)
    blocks = [standard[:, columns] / np.sqrt(len(columns)) for columns in BLOCKS]
    expected, weights = iterate_multiblock(blocks, RESPONSE - RESPONSE.mean(axis=0), 4)
    np.testing.assert_allclose(align_signs(fitted.transform(EMBEDDINGS), expected), expected, atol=1e-7)
    np.testing.assert_allclose(fitted.block_weights_, weights, atol=1e-7)


def test_super_scores_are_orthogonal_and_nested():
    fitted = MultiblockPLS(BLOCKS, 7).fit(EMBEDDINGS, RESPONSE)
    scores = fitted.transform(EMBEDDINGS)
    products = scores.T @ scores
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-10 * products.max()
    np.testing.assert_allclose(np.square(fitted.block_weights_).sum(axis=1), 1)
    fewer = MultiblockPLS(BLOCKS, 3).fit(EMBEDDINGS, RESPONSE)
    np.testing.assert_allclose(align_signs(fewer.transform(EMBEDDINGS), scores[:, :3]), scores[:, :3], atol=1e-9)
    np.testing.assert_array_equal(fitted.keep(3).transform(EMBEDDINGS), scores[:, :3])
    assert fitted.keep(3).block_weights_.shape == (3, 3)


def test_there_are_no_more_components_than_the_blocks_have():
    labels = np.eye(3)[np.arange(40) % 3]
    fitted = MultiblockPLS(BLOCKS, 12).fit(EMBEDDINGS, labels)  # twelve columns, nine of them different
    assert fitted.transform(EMBEDDINGS).shape == (40, 9)


def test_a_constant_column_does_not_divide_by_zero():
    constant = np.concatenate([EMBEDDINGS, np.ones((40, 1))], axis=1)
    blocks = [*BLOCKS[:2], np.array([7, 8, 9])]
    assert np.isfinite(MultiblockPLS(blocks, 4).fit(constant, RESPONSE).transform(constant)).all()


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_a_column_does_not_matter(factor):
    scaled = EMBEDDINGS * np.where(np.arange(9) == 4, factor, 1)
    expected = MultiblockPLS(BLOCKS, 4).fit(EMBEDDINGS, RESPONSE).transform(EMBEDDINGS)
    np.testing.assert_allclose(MultiblockPLS(BLOCKS, 4).fit(scaled, RESPONSE).transform(scaled), expected, atol=1e-9)
