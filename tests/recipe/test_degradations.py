"""Each degradation against an independent measure of what it does."""

import audioop
import io

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from scipy.signal import welch

from recipe.degradations import (
    MP3_RATES,
    OPUS_RATES,
    add_noise,
    add_silence,
    change_level,
    clip,
    cut_speech,
    find_compression,
    limit_band,
    make_noise,
    measure_speech_level,
    mix_voices,
    pass_codec,
    pass_file,
    pass_telephone,
    reverberate,
    shift_offset,
    to_pcm,
)
from recipe.rooms import simulate_room

SPEECH, _ = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")


def decibels(ratio):
    return 10 * np.log10(ratio)


def measure_power(waveform, low, high):
    """Share of the power from `low` to `high` Hz, in dB."""
    frequencies, powers = welch(waveform, 16000, nperseg=2048)
    return decibels(powers[(frequencies >= low) & (frequencies < high)].sum() / powers.sum())


@pytest.mark.parametrize(
    ("law", "encode", "decode"),
    [("ULAW", audioop.lin2ulaw, audioop.ulaw2lin), ("ALAW", audioop.lin2alaw, audioop.alaw2lin)],
)
def test_g711_is_that_of_the_standard_library_for_every_sample_value(law, encode, decode):
    """The same levels; negative samples are rounded to 13 or 14 bits in another direction before they are encoded."""
    every = np.arange(-32768, 32768, dtype=np.int16)
    found = pass_file((every / 32768).astype(np.float32), 8000, "WAV", law) * 32768
    expected = np.frombuffer(decode(encode(every.tobytes(), 2), 2), np.int16)
    np.testing.assert_array_equal(np.unique(found), np.unique(expected))
    np.testing.assert_array_equal(found[every >= 0], expected[every >= 0])
    near = [np.roll(expected, step) for step in range(-4, 5)]
    assert np.all(np.any(found == near, axis=0)[4:-4])


@pytest.mark.parametrize("is_filtered", [False, True])
def test_a_telephone_keeps_place_and_band(is_filtered):
    called = pass_telephone(SPEECH, "ULAW", is_filtered)
    assert called.shape == SPEECH.shape and called.dtype == np.float32
    assert measure_power(called, 4100, 8000) < -60
    noise = pass_telephone(make_noise("white", 160000, np.random.default_rng(0)) / 10, "ALAW", is_filtered)
    low, middle = (measure_power(noise, *band) - decibels(band[1] - band[0]) for band in ((50, 150), (1000, 2000)))
    assert (middle - low > 20) == is_filtered
    inside = slice(8000, -8000)
    assert is_filtered or np.corrcoef(called[inside], limit_band(SPEECH, 4000)[inside])[0, 1] > 0.99


@pytest.mark.parametrize("cutoff", [3000.0, 5512.5, 7000.0])
def test_nothing_is_left_above_the_band_and_all_below_it(cutoff):
    noise = make_noise("white", 160000, np.random.default_rng(0))
    limited = limit_band(noise, cutoff)
    assert len(limited) == len(noise)
    assert measure_power(limited, 1.02 * cutoff, 8000) < -60
    frequencies, before = welch(noise, 16000, nperseg=2048)
    after = welch(limited, 16000, nperseg=2048)[1]
    inside = (frequencies > 50) & (frequencies < 0.88 * cutoff)
    assert np.abs(decibels(after[inside] / before[inside])).max() < 0.5


@pytest.mark.parametrize(
    ("container", "encoding", "rates", "settings", "kilobits"),
    [
        ("MP3", "MPEG_LAYER_III", MP3_RATES, {"bitrate_mode": "CONSTANT"}, 16),
        ("MP3", "MPEG_LAYER_III", MP3_RATES, {"bitrate_mode": "CONSTANT"}, 32),
        ("OGG", "OPUS", OPUS_RATES, {}, 12),
        ("OGG", "OPUS", OPUS_RATES, {}, 32),
    ],
)
def test_bit_rates_are_those_asked_for(container, encoding, rates, settings, kilobits):
    file = io.BytesIO()
    waveform = to_pcm(make_noise("pink", 160000, np.random.default_rng(0)) * 0.05)
    level = find_compression(kilobits, rates)
    soundfile.write(file, waveform, 16000, format=container, subtype=encoding, compression_level=level, **settings)
    assert 8 * file.tell() / 10 / 1000 == pytest.approx(kilobits, rel=0.2)


@pytest.mark.parametrize(("codec", "kilobits"), [("mp3", 32), ("mp3", 64), ("opus", 16), ("gsm", 13)])
def test_a_codec_keeps_the_speech_and_changes_it(codec, kilobits):
    coded = pass_codec(SPEECH, codec, kilobits)
    pairs = [np.corrcoef(SPEECH[8000:56000], coded[8000 + lag : 56000 + lag])[0, 1] for lag in range(1200)]
    assert 0.8 < max(pairs) < 0.9999
    assert (np.argmax(pairs) == 1105) == (codec == "mp3" and kilobits == 32)  # LAME's delay of 576 + 529 samples
    assert measure_power(coded, 4100, 8000) < -60 or codec != "gsm"


@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
@pytest.mark.parametrize("colour", ["white", "pink"])
def test_noise_has_its_level_below_the_speech_without_its_pauses(colour, snr):
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    recording = np.concatenate([np.zeros(16000), 0.1 * tone, np.zeros(32000)]).astype(np.float32)
    noise = make_noise(colour, len(recording), np.random.default_rng(0))
    added = add_noise(recording, noise, snr) - recording
    assert decibels(0.1**2 / 2 / np.mean(np.square(added, dtype=np.float64))) == pytest.approx(snr, abs=0.05)


def test_pink_noise_falls_by_three_decibels_per_octave():
    noise = make_noise("pink", 1_600_000, np.random.default_rng(0))
    octaves = [measure_power(noise, low, 2 * low) for low in (125, 250, 500, 1000, 2000, 4000)]
    assert np.ptp(octaves) < 0.5
    white = make_noise("white", 160000, np.random.default_rng(0))
    assert measure_power(white, 4000, 8000) == pytest.approx(decibels(0.5), abs=0.1)


def test_the_level_of_speech_does_not_depend_on_the_silence_around_it():
    alone = measure_speech_level(SPEECH)
    assert measure_speech_level(np.pad(SPEECH, 32000)) == pytest.approx(alone, rel=1e-6)
    loud = 0.3 * np.ones(3200, np.float32)
    assert measure_speech_level(loud) == pytest.approx(0.3)
    assert measure_speech_level(np.zeros(500, np.float32)) == 0


def test_babble_is_the_sum_of_voices_of_equal_level():
    first, second = SPEECH[5000:40000], 0.01 * SPEECH[60000:85000]
    babble = mix_voices([first, second], 100_000, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    starts = rng.integers(len(first)), rng.integers(len(second))
    expected = np.zeros(100_000)
    for voice, start in zip((first, second), starts):
        times = (start + np.arange(100_000)) % len(voice)
        expected += voice[times] / measure_speech_level(voice)
    np.testing.assert_allclose(babble, expected, atol=1e-4)


def measure_decay(response):
    """RT60 by backward integration (Schroeder 1965): the decay from -5 to -35 dB, doubled."""
    energy = np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1]
    curve = decibels(energy / energy[0])
    part = (curve <= -5) & (curve >= -35)
    slope, _ = np.polyfit(np.flatnonzero(part) / 16000, curve[part], 1)
    return -60 / slope


@pytest.mark.parametrize("seconds", [0.3, 0.4, 0.8])
def test_a_room_decays_as_long_as_it_should(seconds):
    found = [measure_decay(simulate_room((5, number), seconds, seconds)) for number in range(6)]
    assert np.mean(found) == pytest.approx(seconds, rel=0.1)
    assert np.ptp(found) < 0.3 * seconds


def test_a_room_is_the_same_again_and_each_is_another():
    simulate_room.cache_clear()
    first, other = (simulate_room((5, number), 0.3, 0.4) for number in range(2))
    simulate_room.cache_clear()
    np.testing.assert_array_equal(simulate_room((5, 0), 0.3, 0.4), first)
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_reverberation_keeps_level_length_and_place():
    response = simulate_room((5, 0), 0.4, 0.4)
    wet = reverberate(SPEECH, response)
    assert len(wet) == len(SPEECH) and measure_speech_level(wet) == pytest.approx(
        measure_speech_level(SPEECH), rel=0.01
    )
    click = np.zeros(16000, np.float32)
    click[5000] = 1
    assert np.abs(reverberate(click, response)).argmax() == 5000
    expected = np.convolve(SPEECH.astype(np.float64), response)[np.abs(response).argmax() :][: len(SPEECH)]
    np.testing.assert_allclose(wet / np.abs(wet).max(), expected / np.abs(expected).max(), atol=1e-4)


@pytest.mark.parametrize("gain", [-40.0, -6.0, 10.0, 30.0])
def test_a_level_is_stored_in_sixteen_bits(gain):
    changed = change_level(SPEECH, gain)
    steps = changed.astype(np.float64) * 32768
    np.testing.assert_array_equal(steps, np.round(steps))
    expected = np.clip(SPEECH * 10 ** (gain / 20), -1, 32767 / 32768)
    assert np.abs(changed - expected).max() <= 0.5001 / 32768


def test_an_offset_is_the_mean():
    assert np.mean(shift_offset(SPEECH, 0.02), dtype=np.float64) == pytest.approx(
        np.mean(SPEECH, dtype=np.float64) + 0.02, abs=1e-6
    )


@pytest.mark.parametrize("share", [0.005, 0.1])
def test_the_share_of_clipped_samples(share):
    clipped = clip(SPEECH, share)
    limit = np.abs(clipped).max()
    assert np.mean(np.abs(clipped) == limit) == pytest.approx(share, rel=0.01)
    below = np.abs(SPEECH) < limit
    np.testing.assert_array_equal(clipped[below], SPEECH[below])


def test_silence_has_its_length_and_floor():
    longer = add_silence(SPEECH, 0.5, 2.0, -60, np.random.default_rng(0))
    assert len(longer) == len(SPEECH) + 40000
    np.testing.assert_array_equal(longer[8000:-32000], SPEECH)
    for end in (longer[:8000], longer[-32000:]):
        floor = decibels(np.mean(end.astype(np.float64) ** 2) / measure_speech_level(SPEECH) ** 2)
        assert floor == pytest.approx(-60, abs=0.2)


def test_a_cut_is_of_the_speech():
    recording = np.pad(SPEECH, 32000)
    first = cut_speech(recording, 1.0)
    start = next(start for start in range(32000, 48001) if np.array_equal(recording[start : start + 16000], first))
    assert len(first) == 16000 and start - 32000 < 8000
    last = cut_speech(recording, 1.0, position=1.0)
    assert len(last) == 16000 and not np.array_equal(first, last)
    assert len(cut_speech(SPEECH, 60.0)) <= len(SPEECH)
