"""How much each moment of a recording counts for the prediction, by three methods.

- `pooling`: the weight that the pooling layer gives each frame.
- `occlusion`: how much the predicted label loses when 150 ms are silenced (Zeiler and Fergus 2014).
- `gradients`: integrated gradients of the label's log-probability, from silence to the recording (Sundararajan et al.
  2017), as captum computes them.

Each gives one value for every 150 ms, the unit of Nasr, Ren and Johnson (2025, arXiv 2511.11691); higher counts more.
"""

from typing import Any, Literal, get_args

import numpy as np
import torch

from core.speed import PackedLinear
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recording_ser_align import SAMPLING_RATE

Method = Literal["pooling", "occlusion", "gradients"]
METHODS: tuple[Method, ...] = get_args(Method)
STEP = int(0.15 * SAMPLING_RATE)  # samples
BATCH = 16
FADE = SAMPLING_RATE // 200  # samples: silence begins and ends over 5 ms, without a click
NUM_INTEGRATION_STEPS = 24


def measure_saliency(
    recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray, label: int, method: Method
) -> np.ndarray:
    """Measure how much each 150 ms of an utterance counts for a label.

    Args:
        waveform: (samples,) at 16 kHz, trimmed.
        label: index of the label.

    Returns:
        (steps,); the last step may be shorter than 150 ms.

    Raises:
        ValueError: `gradients` of a pipeline whose layers have none, which `load_pipeline` made faster.
    """
    if method == "pooling":
        return average_steps(*measure_pooling(recognize, waveform), len(waveform))
    if method == "occlusion":
        return measure_occlusion(recognize, waveform, label)
    return integrate_gradients(recognize, waveform, label)


def count_steps(samples: int, step: int = STEP) -> int:
    return max(1, -(-samples // step))


def average_steps(values: np.ndarray, seconds: float, samples: int) -> np.ndarray:
    """Average values that are `seconds` apart over steps of 150 ms: (values,) to (steps,)."""
    places = ((np.arange(len(values)) + 0.5) * seconds * SAMPLING_RATE / STEP).astype(int)
    steps = count_steps(samples)
    places = np.minimum(places, steps - 1)
    counts = np.bincount(places, minlength=steps)
    return np.bincount(places, weights=values, minlength=steps) / np.maximum(counts, 1)


def measure_pooling(recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """The pooling weight of each frame, (frames,), and the seconds between frames."""
    output = recognize.score_waveforms([waveform])
    weights = output["frame_weights"][0][output["frame_mask"][0]]
    return weights.double().numpy(), recognize.model.config.frame_seconds


def measure_occlusion(
    recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray, label: int, step: int = STEP
) -> np.ndarray:
    """The log-probability that a label loses when each step in turn is silenced: (steps,).

    Args:
        step: length of a step in samples.
    """
    log_probabilities = score_occluded(recognize, waveform, label, step)
    return log_probabilities[0] - log_probabilities[1:]


def score_occluded(
    recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray, label: int, step: int
) -> np.ndarray:
    """The log-probability of a label for a waveform, then for each step silenced: (1 + steps,)."""
    places = np.eye(count_steps(len(waveform), step), dtype=bool)
    return score_label(recognize, [waveform, *(silence(waveform, each, step) for each in places)], label)


def silence(waveform: np.ndarray, silent: np.ndarray, step: int = STEP) -> np.ndarray:
    """Silence those steps of a waveform, (samples,), where a mask, (steps,), is true."""
    gain = np.repeat(~silent, step)[: len(waveform)].astype(np.float32)
    kernel = np.full(2 * FADE + 1, 1 / (2 * FADE + 1), np.float32)
    return waveform * np.convolve(np.pad(gain, FADE, mode="edge"), kernel, mode="valid")


def score_label(recognize: SpeechEmotionRecognitionPipeline, waveforms: list[np.ndarray], label: int) -> np.ndarray:
    """The log-probability of a label for each waveform: (waveforms,)."""
    batches = [waveforms[first : first + BATCH] for first in range(0, len(waveforms), BATCH)]
    probabilities = [recognize.score_waveforms(batch)["probabilities"][:, label].double() for batch in batches]
    return torch.cat(probabilities).clamp(min=1e-12).log().numpy()


def integrate_gradients(recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray, label: int) -> np.ndarray:
    """Integrated gradients of a label's log-probability with respect to the model's input, averaged over
    150 ms: (steps,).

    The path leads from the features of silence, or from a waveform of zeros, to those of the recording.
    """
    from captum.attr import IntegratedGradients  # an extra, and heavy

    model: Any = recognize.model
    if any(isinstance(module, PackedLinear) for module in model.modules()):
        raise ValueError("the layers of this pipeline have no gradients: make one of load_model, not of load_pipeline")
    name = model.config.family.input_name
    inputs = recognize.extract_features(waveform)[name].unsqueeze(0).to(model.device)
    silent = recognize.extract_features(np.zeros_like(waveform))[name].unsqueeze(0).to(model.device)
    baseline = torch.minimum(silent, inputs.amin()) if model.config.takes_log_mel else torch.zeros_like(inputs)

    def score(values: torch.Tensor) -> torch.Tensor:
        return model(**{name: values}).logits.log_softmax(dim=-1)[:, label]

    attribution = IntegratedGradients(score).attribute(
        inputs, baseline, n_steps=NUM_INTEGRATION_STEPS, internal_batch_size=BATCH
    )
    of_units = attribution[0].double().reshape(attribution.shape[1], -1).sum(dim=1).cpu().numpy()
    seconds = model.config.family.compute_unit_seconds(model.config.encoder_config)
    return average_steps(of_units, seconds, len(waveform))
