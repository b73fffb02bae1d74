"""The front ends of the ONNX graph give what the feature extractors give."""

import numpy as np
import pytest
import torch
from sounds import torch_batch, voices

from feature_extraction_ser_align import SERAlignFeatureExtractor, SERAlignWaveformExtractor
from inference.onnx_front_ends import LogMel, NormalizedWaveform, WhisperLogMel
from whisper_features_ser_align import SERAlignWhisperFeatureExtractor

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("do_normalize", [True, False])
def test_the_waveform_is_normalised_as_the_feature_extractor_does(do_normalize):
    waveforms = [*voices([4000, 16000, 900]), np.zeros(5000, np.float32)]
    extractor = SERAlignWaveformExtractor(do_normalize=do_normalize, return_attention_mask=True)
    expected = extractor(waveforms, sampling_rate=16000, padding=True, return_tensors="pt")
    found, mask = NormalizedWaveform(extractor)(*torch_batch(waveforms))
    assert torch.equal(mask.int(), expected["attention_mask"])
    torch.testing.assert_close(found, expected["input_values"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "dynamic_range": 60.0, "preemphasis": 0.9, "feature_size": 40}])
def test_the_log_mel_frames_are_those_of_the_feature_extractor(options):
    waveforms = [*voices([4000, 16000, 900]), np.zeros(5000, np.float32)]
    waveforms[0][3930:] = 30.0  # after its last full window: only windows that reach into the padding hear it
    waveforms[1][8000:] = 0.0
    extractor = SERAlignFeatureExtractor(return_attention_mask=True, **options)
    expected = extractor(waveforms, sampling_rate=16000, return_tensors="pt")
    found, mask = LogMel(extractor)(*torch_batch(waveforms))
    assert torch.equal(mask, expected["attention_mask"].long())
    torch.testing.assert_close(found, expected["input_features"], rtol=0, atol=5e-4)  # 20 dB are 1


@pytest.mark.parametrize("feature_size", [80, 128])
def test_whispers_log_mel_frames_are_those_of_its_feature_extractor(feature_size):
    waveforms = [*voices([4000, 48000, 47999, 900, 160]), np.zeros(5000, np.float32)]
    waveforms[0][3930:] = 30.0
    extractor = SERAlignWhisperFeatureExtractor(feature_size, longest=300)
    expected = extractor(waveforms, sampling_rate=16000, return_tensors="pt")
    found, mask = WhisperLogMel(extractor)(*torch_batch(waveforms))
    assert torch.equal(mask, expected["attention_mask"].long())
    torch.testing.assert_close(found, expected["input_features"], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [2, 4])
def test_the_log_mel_frames_are_traced_for_any_length(stride):
    """Whether the last frames fill a stack must not be settled by the length that was traced."""
    front_end = LogMel(SERAlignFeatureExtractor(stride=stride))
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    traced = torch.export.export(front_end, torch_batch(voices([64000, 8000])), dynamic_shapes=(free, free)).module()
    for samples in range(400 + 160 * (2 * stride - 1), 3000, 160):  # from two frames on
        batch = torch_batch(voices([samples]))
        torch.testing.assert_close(traced(*batch), front_end(*batch))
