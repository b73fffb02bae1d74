"""The losses of SER-Align: cross-entropy, EAL and FUAL (Byun and Lee, Future Internet 2025, 17(11), 509), KL, focal,
center and supervised contrastive loss (as in Wang et al., arXiv 2512.04551), the cosine distance to a label
distribution (as in Li et al., arXiv 2511.20106), and the concordance loss of emotion dimensions (as in Cho et al.,
arXiv 2505.19693).

A loss is a plain function of tensors. Its weight is a field of SERAlignConfig.

Part of the model code on the Hugging Face Hub; requires only torch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The loss components: field of SERAlignOutput, and name in logs.
LOSS_NAMES = {
    "ce_loss": "CE",
    "eal_loss": "EAL",
    "fual_loss": "FUAL",
    "kl_loss": "KL",
    "cosine_loss": "cosine",
    "focal_loss": "focal",
    "center_loss": "center",
    "contrastive_loss": "contrastive",
    "ccc_loss": "CCC loss",
    "region_loss": "regions",
    "frame_distillation_loss": "frames",
    "branch_loss": "branches",
}


def as_distributions(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as distributions, (batch, classes), float32; a class index is 1 at its class."""
    return labels.float() if labels.ndim == 2 else F.one_hot(labels, num_classes).float()


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: list[float] | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy with a weight for each class; the mean over utterances, computed in float32.

    The cross-entropy of an utterance is multiplied by the weight of its class, and the sum is divided by the number of
    utterances, not by their weights as in torch's mean over class indices. So a weight means the same in every batch:
    accumulated batches and several processes give the update of one large batch, and a class index gives the loss of
    the distribution that is 1 at it.

    Args:
        logits: (batch, classes).
        labels: (batch,) class indices, or (batch, classes) label distributions.
        class_weights: one for each class; None weights all alike.
        label_smoothing: share of each label that is divided among all classes.

    Returns:
        A scalar, at least 0.
    """
    weights = None if class_weights is None else torch.tensor(class_weights, device=logits.device)
    return F.cross_entropy(logits.float(), labels, weights, reduction="none", label_smoothing=label_smoothing).mean()


def branch_loss(
    voice_logits: Tensor,
    text_logits: Tensor,
    has_text: Tensor,
    labels: Tensor,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of the voice alone plus that of the words alone, as [`weighted_cross_entropy`].

    An utterance without words has only the former, and counts in the mean of the latter as 0.

    Args:
        voice_logits, text_logits: (batch, classes).
        has_text: (batch,), bool.

    Returns:
        A scalar, at least 0.
    """
    weights = None if class_weights is None else torch.tensor(class_weights, device=labels.device)
    how: dict[str, Any] = {"weight": weights, "reduction": "none", "label_smoothing": label_smoothing}
    voice, words = (F.cross_entropy(logits.float(), labels, **how) for logits in (voice_logits, text_logits))
    return (voice + words * has_text).mean()


def emotional_attention_loss(cls_output: Tensor, frames: Tensor, frame_mask: Tensor, margin: float = 0.8) -> Tensor:
    """EAL: pulls every frame towards the CLS output until their cosine similarity exceeds the margin.

    Mean over frames of softplus(margin - cos(cls_output, frame)), then mean over utterances.
    Computed in float32. Source: Byun and Lee 2025, emotional attention loss.

    Args:
        cls_output: (batch, hidden), output of the pooling encoder at the CLS position.
        frames: (batch, frames, hidden), outputs of the pooling encoder at the frames.
        frame_mask: (batch, frames), nonzero for frames of the utterance; other frames are ignored.
        margin: cosine similarity above which the pull on a frame fades; 0.8 is best in the paper.

    Returns:
        A scalar, at least 0.
    """
    similarity = F.cosine_similarity(cls_output.float().unsqueeze(1), frames.float(), dim=-1)
    mask = frame_mask.to(similarity.dtype)
    per_utterance = (F.softplus(margin - similarity) * mask).sum(dim=1) / mask.sum(dim=1)
    return per_utterance.mean()


def frame_to_utterance_alignment_loss(
    logits: Tensor,
    frame_logits: Tensor,
    log_frame_weights: Tensor,
    direction: str = "utterance_to_frames",
    gradient: str = "both",
) -> Tensor:
    """FUAL: makes the weighted mean of the frames' class distributions agree with that of the utterance.

    q = softmax(logits), p = sum over frames of weight * softmax(frame_logits); KL(q || p), or KL(p || q)
    with `direction="frames_to_utterance"`; mean over utterances. Computed in float32 from
    log-probabilities. Source: Byun and Lee 2025, frame-to-utterance alignment loss.

    Args:
        logits: (batch, classes), of the utterance.
        frame_logits: (batch, frames, classes).
        log_frame_weights: (batch, frames), logarithm of the frame weights of the pooling; very negative or
            minus infinity at padding, which is then ignored.
        direction: `"utterance_to_frames"` or `"frames_to_utterance"`.
        gradient: `"both"`, `"frames"` or `"utterance"`: the side that receives the gradient; the other is detached.

    Returns:
        A scalar, at least 0.
    """
    log_utterance = F.log_softmax(logits.float(), dim=-1)
    log_each_frame = F.log_softmax(frame_logits.float(), dim=-1)
    log_frames = torch.logsumexp(log_frame_weights.float().unsqueeze(-1) + log_each_frame, dim=1)
    if gradient == "frames":
        log_utterance = log_utterance.detach()
    elif gradient == "utterance":
        log_frames = log_frames.detach()
    log_p, log_q = (log_utterance, log_frames) if direction == "utterance_to_frames" else (log_frames, log_utterance)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()


def soft_label_divergence(logits: Tensor, labels: Tensor, class_weights: list[float] | None = None) -> Tensor:
    """KL(label || prediction), mean over utterances, in float32. Source: Wang et al. 2025, arXiv 2512.04551.

    Equals the cross-entropy minus the entropy of the label, so the two have the same gradient, and the same value for a
    class index.

    Args:
        logits: (batch, classes).
        labels: (batch,) class indices, or (batch, classes) label distributions.
        class_weights: one for each class; an utterance has the mean of them under its label. None weights all alike.

    Returns:
        A scalar, at least 0.
    """
    targets = as_distributions(labels, logits.shape[-1])
    each = (torch.xlogy(targets, targets) - targets * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1)
    if class_weights is not None:
        each = each * (targets @ torch.tensor(class_weights, device=logits.device))
    return each.mean()


def cosine_distance(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - cos(label, prediction), mean over utterances, in float32. Source: Li et al. 2025, arXiv 2511.20106.

    Args:
        logits: (batch, classes).
        labels: (batch,) class indices, or (batch, classes) label distributions.

    Returns:
        A scalar from 0 to 1.
    """
    predictions = F.softmax(logits.float(), dim=-1)
    return (1 - F.cosine_similarity(as_distributions(labels, logits.shape[-1]), predictions, dim=-1)).mean()


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, class_weights: list[float] | None = None) -> Tensor:
    """Focal loss: -(1 - p)^gamma log p at the label, mean over utterances, in float32. Source: Lin et al. 2017.

    For a label distribution, the mean of this over its classes. With gamma 0, it is the cross-entropy.

    Args:
        logits: (batch, classes).
        labels: (batch,) class indices, or (batch, classes) label distributions.
        gamma: at least 0; the larger it is, the less confident answers count.
        class_weights: one for each class; None weights all alike.

    Returns:
        A scalar, at least 0.
    """
    log_p = F.log_softmax(logits.float(), dim=-1)
    # Accurate near p = 1, where 1 - p cancels; not 0, where a power below 1 has no gradient.
    doubt = (-torch.expm1(log_p)).clamp(min=torch.finfo(torch.float32).tiny)
    each = -as_distributions(labels, logits.shape[-1]) * doubt.pow(gamma) * log_p
    if class_weights is not None:
        each = each * torch.tensor(class_weights, device=logits.device)
    return each.sum(dim=-1).mean()


def center_loss(projections: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """Center loss: half the squared distance to the centre of the class, mean over utterances, in float32.

    For a label distribution, the mean of this over its classes. Source: Wen et al. 2016.

    Args:
        projections: (batch, size), of the utterances.
        centers: (classes, size).
        labels: (batch,) class indices, or (batch, classes) label distributions.

    Returns:
        A scalar, at least 0.
    """
    distances = (projections.float().unsqueeze(1) - centers.float()).square().sum(dim=-1)
    return 0.5 * (as_distributions(labels, len(centers)) * distances).sum(dim=-1).mean()


def broadcast_context(frames: Tensor, frame_mask: Tensor) -> Tensor:
    """Context broadcasting: the mean of each frame and the mean frame of its utterance (Hyeon-Woo et al. 2023).

    Args:
        frames: (batch, frames, hidden).
        frame_mask: (batch, frames), nonzero for frames of the utterance; the others do not count in its mean.
    """
    mask = frame_mask.to(frames.dtype).unsqueeze(-1)
    mean = (frames * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
    return (frames + mean) / 2


def supervised_contrastive_loss(
    frames: Tensor, frame_mask: Tensor, labels: Tensor, temperature: float = 0.1, samples: str = "utterances"
) -> Tensor:
    """Supervised contrastive loss after context broadcasting; mean over utterances, in float32.

    A sample is near to those of its class and far from all others: minus the mean over samples p of its class of
    log(exp(z z_p / temperature) / sum over all other samples a of exp(z z_a / temperature)), for unit vectors z. Two
    label distributions are of one class by their inner product; a sample whose total is below 1 counts that much less,
    and not at all if no other is of its class. Source: Khosla et al. 2020; on frames after context broadcasting, Wang
    et al. 2025. What a sample is and how distributions count is ours.

    The loss depends on which utterances share a batch: it is not a mean of losses of single utterances. With gradient
    accumulation or several processes, utterances are compared only with those of their own batch.

    Args:
        frames: (batch, frames, hidden), outputs of the pooling layer at the frames.
        frame_mask: (batch, frames), nonzero for frames of the utterance; other frames are ignored.
        labels: (batch,) class indices, or (batch, classes) label distributions.
        temperature: divides the cosine similarities.
        samples: `"utterances"`: one per utterance, the direction of the mean of its frames' directions; or `"frames"`:
            each frame, with the label of its utterance, and the same total weight for every utterance.

    Returns:
        A scalar, at least 0.
    """
    mask = frame_mask.bool()
    vectors = F.normalize(broadcast_context(frames.float(), mask), dim=-1)
    shares = torch.full((len(labels),), 1 / len(labels), device=frames.device)
    if samples == "frames":
        owners = mask.nonzero()[:, 0]
        vectors, labels, shares = vectors[mask], labels[owners], (shares / mask.sum(dim=1))[owners]
    else:
        vectors = F.normalize((vectors * mask.unsqueeze(-1)).sum(dim=1), dim=-1)
    itself = torch.eye(len(vectors), dtype=torch.bool, device=frames.device)
    with torch.autocast(frames.device.type, enabled=False):  # which would compute the products in 16 bits
        similarities = (vectors @ vectors.T / temperature).masked_fill(itself, torch.finfo(torch.float32).min)
        alike = labels.float() @ labels.float().T if labels.ndim == 2 else (labels[:, None] == labels).float()
    alike = alike.masked_fill(itself, 0.0)
    each = -(alike * F.log_softmax(similarities, dim=-1)).sum(dim=-1) / alike.sum(dim=-1).clamp(min=1.0)
    return (each * shares).sum()


def concordance(predictions: Tensor, targets: Tensor) -> Tensor:
    """Concordance correlation coefficient (CCC) of each dimension, (dimensions,), in float32. Source: Lin 1989.

    2 cov / (var + var + (difference of the means)^2), with moments over the batch; 1 for equal values, 0 for constants.

    Args:
        predictions, targets: (batch, dimensions), on the same scale.
    """
    found, true = predictions.float(), targets.float()
    covariance = ((found - found.mean(dim=0)) * (true - true.mean(dim=0))).mean(dim=0)
    spread = found.var(dim=0, correction=0) + true.var(dim=0, correction=0)
    spread = spread + (found.mean(dim=0) - true.mean(dim=0)).square()
    return 2 * covariance / spread.clamp(min=torch.finfo(torch.float32).tiny)


def concordance_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """1 - CCC, summed over the dimensions, in float32. Source: Cho et al. 2025, arXiv 2505.19693.

    The coefficient is that of the utterances of a batch: it is not a mean of losses of single utterances. Accumulated
    batches and several processes each have their own, and a batch of one utterance has the loss 1 and no gradient.

    Args:
        predictions, targets: (batch, dimensions), on the same scale.

    Returns:
        A scalar from 0 to twice the number of dimensions.
    """
    return (1 - concordance(predictions, targets)).sum()


def frame_distillation_loss(frames: Tensor, frame_mask: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error between frames and those of a teacher, each feature standardised over the batch.

    A frame is compared with that at the same place of the utterance, as a share of its length, so the two encoders may
    have frames of any length.

    Args:
        frames: (batch, frames, features), of the student, mapped to the features of the teacher.
        frame_mask: (batch, frames), True for frames of the utterance.
        targets: (batch, frames of the teacher, features), zero at the padding on the right.

    Returns:
        A scalar, at least 0; 1 if all frames are zero.
    """
    targets = targets.float()
    lengths, numbers = targets.any(dim=-1).sum(dim=1, keepdim=True), frame_mask.sum(dim=1, keepdim=True)
    places = (torch.arange(frames.shape[1], device=frames.device) + 0.5) / numbers * lengths
    nearest = places.long().clamp(max=targets.shape[1] - 1)
    aligned = targets.gather(1, nearest.unsqueeze(-1).expand(-1, -1, targets.shape[2]))[frame_mask]
    deviation, mean = torch.std_mean(aligned, dim=0, correction=0)
    return F.mse_loss(frames[frame_mask].float(), (aligned - mean) / deviation.clamp(min=1e-5))
