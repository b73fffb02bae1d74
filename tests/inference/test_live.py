"""Standard input, whose format only its first bytes tell."""

import io

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from inference.live import open_stream
from quality_ser_align import RecordingQuality
from recording_ser_align import read_blocks

VOICE, RATE = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")


def encode(samples, **form):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, **{"format": "WAV", **form})
    return file.getvalue()


def read_stream(content):
    whole, seconds = open_stream(io.BytesIO(content), RecordingQuality())
    assert whole is None
    return np.concatenate(list(seconds))


def read_file(content):
    return np.concatenate(list(read_blocks(content)))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16"])
def test_a_stream_of_unknown_length_is_read_to_its_end(subtype):
    whole = encode(VOICE, subtype=subtype)
    stopped = whole[:40] + bytes(4) + whole[44:]
    np.testing.assert_array_equal(read_stream(stopped), read_file(whole))


@pytest.mark.parametrize(("channels", "bits"), [(6, 16), (1, 24), (2, 32)])
def test_a_stream_of_many_channels_or_bits_is_read_as_its_file(channels, bits):
    """WAVE_FORMAT_EXTENSIBLE, as ffmpeg writes for these."""
    samples = np.stack([VOICE / (n + 1) for n in range(channels)], axis=1)
    file = encode(samples, format="WAVEX", subtype=f"PCM_{bits}")
    np.testing.assert_allclose(read_stream(file), read_file(file), atol=1e-7)


def test_raw_samples_that_start_below_zero_are_not_taken_for_mp3():
    samples = np.concatenate([np.array([-1, 21, -2, 37], "<i2"), (20000 * VOICE).astype("<i2")])
    np.testing.assert_allclose(read_stream(samples.tobytes()), samples / 32768)
