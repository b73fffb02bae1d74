"""The training objective of SER-Align: the enabled losses, their weighted sum, and what only they train.

Part of the model code on the Hugging Face Hub; requires only torch and transformers. Inference does not use it.
"""

import torch
from torch import Tensor, nn

try:
    from .checks_ser_align import check_labels, check_targets
    from .configuration_ser_align import SERAlignConfig
    from .dimensions_ser_align import find_regions
    from .heads_ser_align import Pooled, make_dimension_head
    from .losses_ser_align import (
        branch_loss,
        center_loss,
        concordance_loss,
        cosine_distance,
        emotional_attention_loss,
        focal_loss,
        frame_distillation_loss,
        frame_to_utterance_alignment_loss,
        soft_label_divergence,
        supervised_contrastive_loss,
        weighted_cross_entropy,
    )
    from .text_ser_align import Fused
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from checks_ser_align import check_labels, check_targets
    from configuration_ser_align import SERAlignConfig
    from dimensions_ser_align import find_regions
    from heads_ser_align import Pooled, make_dimension_head
    from losses_ser_align import (
        branch_loss,
        center_loss,
        concordance_loss,
        cosine_distance,
        emotional_attention_loss,
        focal_loss,
        frame_distillation_loss,
        frame_to_utterance_alignment_loss,
        soft_label_divergence,
        supervised_contrastive_loss,
        weighted_cross_entropy,
    )
    from text_ser_align import Fused


class Objective(nn.Module):
    """The losses with a weight above 0. With the center loss, a projection of the embedding and a centre per class.

    With frame distillation, a linear map to the frames of the teacher. With the loss of regions, a classifier of them;
    the weight of the configuration is then multiplied by `region_share`.

    Args:
        config: the configuration of the model; its loss weights are read in each call.
        embedding_size: size of the utterance vector.
    """

    def __init__(self, config: SERAlignConfig, embedding_size: int):
        super().__init__()
        self.config = config
        self.projection: nn.Linear | None = None
        self.centers: nn.Parameter | None = None
        if config.center_weight > 0:
            self.projection = nn.Linear(embedding_size, config.center_size)
            self.centers = nn.Parameter(torch.empty(config.num_labels, config.center_size))
        self.region_share = 1.0
        self.region_classifier: nn.Module | None = None
        if config.region_weight > 0 and config.dimensions is not None:
            self.region_classifier = make_dimension_head(config, embedding_size, 2 ** len(config.dimensions))
        self.teacher_map: nn.Linear | None = None
        if config.frame_distillation_weight > 0:
            self.teacher_map = nn.Linear(config.encoder_config.hidden_size, config.teacher_size)

    def start_epoch(self, epoch: int) -> None:
        """Set the share of the region loss: 1 - 0.99 e / n in epochs e = 0 to n - 1, then 0 (code of Cho et al. 2025).

        n is `region_epochs`, and 0 keeps the share at 1.
        """
        last = self.config.region_epochs
        self.region_share = 1.0 if last == 0 else 1 - 0.99 * epoch / last if epoch < last else 0.0

    def forward(
        self,
        pooled: Pooled,
        logits: Tensor,
        frame_logits: Tensor,
        frame_mask: Tensor,
        labels: Tensor,
        values: Tensor | None = None,
        targets: Tensor | None = None,
        fused: Fused | None = None,
        frames: Tensor | None = None,
        teacher_frames: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the enabled losses by the names of `SERAlignOutput`, and `loss`, their weighted sum.

        Args:
            values, targets: predicted and true dimensions, (batch, dimensions); None for a model without.
            fused: answers of voice and words, of a model that reads words; its logits are `logits`.
            frames, teacher_frames: of the encoder and of a teacher, (batch, frames, features); None without a teacher.
        """
        config, labels = self.config, check_labels(labels, *logits.shape)
        weighted: dict[str, tuple[float, Tensor]] = {}
        if values is not None:
            targets = check_targets(targets, *values.shape)
            if config.ccc_weight > 0:
                weighted["ccc_loss"] = (config.ccc_weight, concordance_loss(values, targets))
            if self.region_classifier is not None and self.region_share > 0:
                region_logits = self.region_classifier(pooled.embedding)
                regions = find_regions(targets, config.dimensions)
                loss = weighted_cross_entropy(region_logits, regions, config.region_class_weights)
                weighted["region_loss"] = (config.region_weight * self.region_share, loss)
        if config.ce_weight > 0:
            ce = weighted_cross_entropy(logits, labels, config.class_weights, config.label_smoothing)
            weighted["ce_loss"] = (config.ce_weight, ce)
        if pooled.cls_output is not None and config.eal_weight > 0:
            eal = emotional_attention_loss(pooled.cls_output, pooled.frames, frame_mask, config.eal_margin)
            weighted["eal_loss"] = (config.eal_weight, eal)
        if pooled.cls_output is not None and config.fual_weight > 0:
            utterance = fused.voice_logits if fused and config.fual_utterance == "voice" else logits
            fual = frame_to_utterance_alignment_loss(
                utterance, frame_logits, pooled.log_frame_weights, config.fual_direction, config.fual_gradient
            )
            weighted["fual_loss"] = (config.fual_weight, fual)
        if fused is not None and config.branch_weight > 0:
            alone = (fused.voice_logits, fused.text_logits, fused.has_text)
            branches = branch_loss(*alone, labels, config.class_weights, config.label_smoothing)
            weighted["branch_loss"] = (config.branch_weight, branches)
        if config.kl_weight > 0:
            weighted["kl_loss"] = (config.kl_weight, soft_label_divergence(logits, labels, config.class_weights))
        if config.cosine_weight > 0:
            weighted["cosine_loss"] = (config.cosine_weight, cosine_distance(logits, labels))
        if config.focal_weight > 0:
            focal = focal_loss(logits, labels, config.focal_gamma, config.class_weights)
            weighted["focal_loss"] = (config.focal_weight, focal)
        if self.projection is not None and self.centers is not None:
            center = center_loss(self.projection(pooled.embedding), self.centers, labels)
            weighted["center_loss"] = (config.center_weight, center)
        if config.contrastive_weight > 0:
            contrastive = supervised_contrastive_loss(
                pooled.frames, frame_mask, labels, config.contrastive_temperature, config.contrastive_samples
            )
            weighted["contrastive_loss"] = (config.contrastive_weight, contrastive)
        if self.teacher_map is not None and teacher_frames is not None:
            distance = frame_distillation_loss(self.teacher_map(frames), frame_mask, teacher_frames)
            weighted["frame_distillation_loss"] = (config.frame_distillation_weight, distance)
        total: Tensor = sum(weight * loss for weight, loss in weighted.values())  # type: ignore[assignment]
        return {"loss": total, **{name: loss for name, (_, loss) in weighted.items()}}
