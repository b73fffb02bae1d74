"""The emotion tracker: which emotion each frame has, trained on utterances that follow each other without a pause.

Part of the model code on the Hugging Face Hub; requires only torch.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

CONTEXT = 1.0  # seconds before and after a frame that each of the two convolutions sees; ours
DROPOUT = 0.3  # ours


class EmotionTracker(nn.Module):
    """Logits of each frame from the frames around it (ours).

    The classifier of utterances, applied to frames, cannot tell where an emotion begins: it was trained on their mean
    alone. The tracker is trained on the frames of windows in which the emotion changes. This happens once all else is
    trained, and changes no frame, so that no other output depends on it.
    """

    def __init__(self, config: Any):
        super().__init__()
        size = config.tracker_size
        kernel = 2 * max(1, round(CONTEXT / config.frame_seconds)) + 1
        self.project = nn.Linear(config.encoder_config.hidden_size, size)
        self.norm = nn.LayerNorm(size)
        self.spread = nn.ModuleList(nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=size) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.mix = nn.ModuleList(nn.Linear(size, size) for _ in range(2))
        self.classify = nn.Linear(size, config.num_labels)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """Score frames.

        Args:
            frames: (batch, frames, hidden), of the encoder.
            frame_mask: (batch, frames), True for frames of the utterance.

        Returns:
            (batch, frames, classes), meaningless where the mask is False.
        """
        valid = frame_mask.unsqueeze(-1).to(frames.dtype)
        tracked = self._drop(self.norm(self.project(frames))) * valid
        for spread, norm, mix in zip(self.spread, self.norms, self.mix):
            around = spread(tracked.transpose(1, 2)).transpose(1, 2)
            tracked = (tracked + self._drop(F.gelu(mix(norm(around))))) * valid
        return self.classify(tracked)

    def _drop(self, values: Tensor) -> Tensor:
        return F.dropout(values, DROPOUT, self.training)
