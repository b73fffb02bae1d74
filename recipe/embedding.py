"""Embeddings of frozen features that a linear classifier is then fitted to: EDRL-MEA, and domain-adversarial training.

EDRL-MEA (arXiv 2510.09072, Tiwari et al. 2025) has no code, and its losses and sizes are unknown to us. Ours: an
encoder is one layer, tanh(W x + b). The intra-class encoder of a class learns that class against the rest; the
inter-class encoder, which all classes share, learns to tell all of them apart; and the squared correlation between the
two is a penalty, so that they learn different things. The block of a class holds the output of both.

Domain-adversarial training (Ganin et al. 2016) reverses the gradient of a classifier of domains.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional

from core.multiblock import Embedder, MultiblockPLS
from recipe.classical_options import ClassicalFields

BATCH_SIZE = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
INPUT_DROPOUT = 0.5  # a frozen encoder gives more features than there are training utterances
STEEPNESS = 10.0  # of the rise of the reversed gradient from 0 to its weight (Ganin et al. 2016)


def fit_embeddings(
    own: ClassicalFields, seed: int, features: np.ndarray, labels: np.ndarray, domains: np.ndarray
) -> list[tuple[dict[str, float], list[tuple[str, Embedder | MultiblockPLS]]]]:
    """What a classifier may be fitted to in place of features: fitted transformers, and what tells them apart.

    Args:
        features: (utterances, features), standardised.
        labels, domains: (utterances,), from 0.

    Returns:
        of a classifier of the features themselves, one with no transformers.
    """
    if own.classifier == "edrl_mea":
        embedder, blocks = train_disentangled(
            features, labels, own.embedding_size, own.disentangle_weight, own.num_embedding_epochs, seed
        )
        response = features if own.response == "features" else np.eye(int(labels.max()) + 1)[labels]
        aligned = MultiblockPLS(blocks, max(own.num_components)).fit(embedder.transform(features), response)
        numbers = sorted({min(number, len(aligned.block_weights_)) for number in own.num_components})
        return [
            ({"num_components": number}, [("embedder", embedder), ("alignment", aligned.keep(number))])
            for number in numbers
        ]
    if own.classifier == "adversarial":
        trained = {
            weight: train_adversarial(
                features, labels, domains, own.hidden_size, weight, own.num_embedding_epochs, seed
            )
            for weight in sorted(own.reversal_weights)
        }
        return [({"reversal_weight": weight}, [("embedder", embedder)]) for weight, embedder in trained.items()]
    return [({}, [])]


def train_disentangled(
    features: np.ndarray, labels: np.ndarray, size: int, disentangle_weight: float, num_epochs: int, seed: int
) -> tuple[Embedder, list[np.ndarray]]:
    """Train the encoders of EDRL.

    Args:
        features: (utterances, features), standardised.
        labels: (utterances,), from 0.
        size: of each encoder's output.

    Returns:
        what computes the output of all encoders, and the columns of each class's block in it.
    """
    number = int(labels.max()) + 1
    weights = torch.tensor(compute_class_weight("balanced", classes=np.arange(number), y=labels), dtype=torch.float32)
    torch.manual_seed(seed)
    encoder = nn.Linear(features.shape[1], (number + 1) * size)
    intra_head, inter_head = nn.Linear(number * size, number), nn.Linear(size, number)
    own = torch.eye(number).repeat_interleave(size, dim=1)  # a class is decided by its own encoder alone

    def compute_loss(batch: Tensor, chosen: Tensor, progress: float) -> Tensor:
        embedded = torch.tanh(encoder(batch))
        intra, inter = embedded[:, :-size], embedded[:, -size:]
        truth = functional.one_hot(chosen, number).float()
        against_rest = functional.linear(intra, intra_head.weight * own, intra_head.bias)
        balance = torch.where(truth == 1, 0.5 * weights, 0.5 * weights / (weights * number - 1))
        one_class = functional.binary_cross_entropy_with_logits(against_rest, truth, balance * number)
        all_classes = functional.cross_entropy(inter_head(inter), chosen, weights)
        return all_classes + one_class + disentangle_weight * measure_overlap(intra, inter)

    train([encoder, intra_head, inter_head], compute_loss, features, labels, num_epochs)
    shared = np.arange(number * size, (number + 1) * size)
    blocks = [np.concatenate([np.arange(start, start + size), shared]) for start in range(0, number * size, size)]
    return to_embedder(encoder), blocks


def measure_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared correlation, over a batch, of the columns of (batch, m) with those of (batch, n)."""
    standardized = [
        (each - each.mean(dim=0)) / (each.std(dim=0, correction=0) + 1e-4) / len(each) ** 0.5
        for each in (first, second)
    ]
    return (standardized[0].T @ standardized[1]).square().mean()


def train_adversarial(
    features: np.ndarray,
    labels: np.ndarray,
    domains: np.ndarray,
    size: int,
    reversal_weight: float,
    num_epochs: int,
    seed: int,
) -> Embedder:
    """Train an encoder whose output tells classes apart, but not domains.

    Args:
        features: (utterances, features), standardised.
        labels, domains: (utterances,), from 0.
        size: of the encoder's output.
    """
    weights = torch.tensor(compute_class_weight("balanced", classes=np.unique(labels), y=labels), dtype=torch.float32)
    torch.manual_seed(seed)
    encoder = nn.Linear(features.shape[1], size)
    class_head, domain_head = nn.Linear(size, len(weights)), nn.Linear(size, int(domains.max()) + 1)

    def compute_loss(batch: Tensor, chosen: Tensor, progress: float) -> Tensor:
        embedded = torch.tanh(encoder(batch))
        weight = reversal_weight * (2 / (1 + np.exp(-STEEPNESS * progress)) - 1)
        of_classes = functional.cross_entropy(class_head(embedded), chosen[:, 0], weights)
        return of_classes + functional.cross_entropy(domain_head(reverse_gradient(embedded, weight)), chosen[:, 1])

    train([encoder, class_head, domain_head], compute_loss, features, np.stack([labels, domains], axis=1), num_epochs)
    return to_embedder(encoder)


def reverse_gradient(values: Tensor, weight: float) -> Tensor:
    """The values themselves, with a gradient that is multiplied by -weight."""
    return (1 + weight) * values.detach() - weight * values


def train(
    modules: list[nn.Module],
    compute_loss: Callable[[Tensor, Tensor, float], Tensor],
    features: np.ndarray,
    targets: np.ndarray,
    num_epochs: int,
) -> None:
    """Train modules with AdamW on shuffled batches; torch's generator must be seeded.

    Args:
        compute_loss: takes a batch (utterances, features), its targets, and the progress from 0 to 1.
    """
    inputs, chosen = torch.from_numpy(features).float(), torch.from_numpy(targets).long()
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for epoch in range(num_epochs):
        for rows in torch.randperm(len(inputs)).split(BATCH_SIZE):
            if len(rows) == 1:
                continue  # has no correlation
            loss = compute_loss(functional.dropout(inputs[rows], INPUT_DROPOUT), chosen[rows], epoch / num_epochs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def to_embedder(encoder: nn.Linear) -> Embedder:
    weight, bias = (each.detach().double().numpy() for each in (encoder.weight.T, encoder.bias))
    return Embedder(np.ascontiguousarray(weight), bias)
