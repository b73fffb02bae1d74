"""The losses of SER-Align: cross-entropy, EAL and FUAL (Byun and Lee, Future Internet 2025, 17(11), 509).

A loss is a plain function of tensors. Its weight is a field of SERAlignConfig.

Part of the model code on the Hugging Face Hub; requires only torch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# The loss components: field of SERAlignOutput, and name in logs.
LOSS_NAMES = {"ce_loss": "CE", "eal_loss": "EAL", "fual_loss": "FUAL"}


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
