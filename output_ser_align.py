"""What the model returns.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class SERAlignOutput(ModelOutput):
    """Output of [`SERAlignForAudioClassification`]. B utterances, T frames, D hidden size, C classes.

    Args:
        loss: scalar, the sum of the losses below, each times its weight in the configuration; None without labels.
        logits: (B, C), utterance scores before the softmax.
        frame_logits: (B, T, C), frame scores before the softmax; meaningless where `frame_mask` is False.
        frame_weights: (B, T), pooling weights, which sum to 1 over the frames of an utterance; 0 at padding.
        frame_mask: (B, T), True for frames of the utterance, which are `config.frame_seconds` apart.
        tracker_logits: (B, T, C), scores of what each frame has by itself, before the softmax, which make the timeline;
            meaningless where `frame_mask` is False; None without `config.tracker_size`, and in training mode.
        dimensions: (B, K), the K dimensions on their own scales, calibrated; None without `config.dimensions`.
        embedding: (B, D), or (B, 2D) with `cls_in_embedding="concat"`: the input of the classifier; with a text encoder
            the vector of voice and words.
        voice_logits, text_logits: (B, C), of the voice alone and of the words alone, which for missing words is their
            learned state; None without a text encoder.
        ce_loss, eal_loss, fual_loss, kl_loss, cosine_loss, focal_loss, center_loss, contrastive_loss, ccc_loss,
            region_loss, frame_distillation_loss, branch_loss: scalars before weighting: cross-entropy, emotional
            attention, frame-to-utterance alignment, KL to the label, cosine distance to it, focal, center and
            supervised contrastive loss, concordance loss of the dimensions, cross-entropy of their regions, distance of
            the frames from those of a teacher, cross-entropy of voice and words alone; None if disabled, and without
            labels.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    frame_logits: Tensor | None = None
    frame_weights: Tensor | None = None
    frame_mask: Tensor | None = None
    tracker_logits: Tensor | None = None
    embedding: Tensor | None = None
    dimensions: Tensor | None = None
    voice_logits: Tensor | None = None
    text_logits: Tensor | None = None
    ce_loss: Tensor | None = None
    eal_loss: Tensor | None = None
    fual_loss: Tensor | None = None
    kl_loss: Tensor | None = None
    cosine_loss: Tensor | None = None
    focal_loss: Tensor | None = None
    center_loss: Tensor | None = None
    contrastive_loss: Tensor | None = None
    ccc_loss: Tensor | None = None
    region_loss: Tensor | None = None
    frame_distillation_loss: Tensor | None = None
    branch_loss: Tensor | None = None
