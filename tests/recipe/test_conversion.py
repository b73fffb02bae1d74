"""Voice conversion: what is measured of the converted speech by other means, and commands in its place."""

import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from core.errors import InputError
from core.librosa_loading import load_librosa
from recipe.conversion import (
    Voice,
    analyse,
    check_command,
    convert,
    describe_voice,
    find_warp,
    map_pitch,
    run_command,
)

RATE = 16000
SPEECH, _ = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")


def measure_pitch(waveforms):
    """Median and interquartile range of log F0, by pYIN of librosa."""
    librosa = load_librosa()
    found = [librosa.pyin(each, fmin=60, fmax=600, sr=RATE)[0] for each in waveforms]
    log = np.log(np.concatenate([track[np.isfinite(track)] for track in found]))
    return np.median(log), np.subtract(*np.percentile(log, [75, 25]))


def formant(waveform, low, high):
    """The frequency of the highest peak of a smoothed long-term spectrum, by Welch's method, between two in Hz."""
    from scipy.signal import welch

    frequencies, power = welch(waveform, RATE, nperseg=256)
    inside = (frequencies >= low) & (frequencies <= high)
    return frequencies[inside][np.argmax(power[inside])]


def vowel(pitch, formants, seconds=1.5, swing=0.1, seed=0):
    """A sawtooth of a slowly moving pitch through resonances, with a little noise."""
    from scipy.signal import lfilter

    time = np.arange(int(seconds * RATE)) / RATE
    f0 = pitch * np.exp(swing * np.sin(2 * np.pi * 1.5 * time))
    wave = 2 * (np.cumsum(f0 / RATE) % 1) - 1 + 0.01 * np.random.default_rng(seed).standard_normal(len(time))
    for frequency in formants:
        radius = np.exp(-np.pi * 80 / RATE)
        wave = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], wave)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


LOW = [vowel(110, (500, 1500, 2500), swing=0.08, seed=n) for n in range(2)]
HIGH = [vowel(215, (590, 1770, 2950), swing=0.16, seed=n) for n in range(2)]


@pytest.mark.parametrize(("sources", "targets"), [(LOW, HIGH), (HIGH, LOW)])
def test_converted_speech_has_the_pitch_of_the_target(sources, targets):
    source, target = describe_voice(sources), describe_voice(targets)
    median, spread = measure_pitch([convert(each, source, target) for each in sources])
    expected_median, expected_spread = measure_pitch(targets)
    assert abs(median - expected_median) < np.log(2) / 24  # a quarter tone
    assert spread == pytest.approx(expected_spread, rel=0.15)


@pytest.mark.parametrize(("sources", "targets"), [(LOW, HIGH), (HIGH, LOW)])
def test_converted_speech_has_the_formants_of_the_target(sources, targets):
    converted = convert(sources[0], describe_voice(sources), describe_voice(targets))
    expected = formant(targets[0], 1200, 2200)
    assert abs(formant(sources[0], 1200, 2200) - expected) > 200
    assert abs(formant(converted, 1200, 2200) - expected) < 130  # two bands


def test_length_and_level_are_kept_and_nothing_is_random():
    source, target = describe_voice([SPEECH]), describe_voice(HIGH)
    for end in (len(SPEECH), len(SPEECH) - 37, 8001):
        speech = SPEECH[:end]
        first, again = (convert(speech, source, target) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert first.shape == speech.shape and first.dtype == np.float32 and np.abs(first).max() <= 1
        assert np.std(first) == pytest.approx(np.std(speech), rel=0.02)


def test_a_voice_that_is_converted_to_itself_keeps_its_pitch_and_spectrum():
    voice = describe_voice([SPEECH])
    same = convert(SPEECH, voice, voice)
    assert abs(measure_pitch([same])[0] - measure_pitch([SPEECH])[0]) < np.log(2) / 24
    librosa = load_librosa()
    logs = [np.log(librosa.feature.melspectrogram(y=each, sr=RATE, n_mels=40) + 1e-4) for each in (SPEECH, same)]
    assert np.corrcoef(logs[0].ravel(), logs[1].ravel())[0, 1] > 0.95


def test_pitch_is_mapped_by_hand():
    """Median 100 Hz and range log 1.2 to 200 Hz and twice the range: 120 Hz becomes 200 * 1.2 ** 2."""
    source, target = Voice(np.log(100), np.log(1.2), np.zeros(3)), Voice(np.log(200), 2 * np.log(1.2), np.zeros(3))
    np.testing.assert_allclose(map_pitch(np.array([0, 100, 120.0]), source, target), [0, 200, 288])
    monotone = source._replace(range=0.0)
    np.testing.assert_allclose(map_pitch(np.array([110.0]), monotone, target), [220])
    assert map_pitch(np.array([100.0]), source, target._replace(pitch=np.log(5000))) == [800]


@pytest.mark.parametrize("ratio", [0.88, 1.0, 1.14])
def test_the_ratio_of_vocal_tracts_is_found(ratio):
    bands = np.arange(513) * RATE / 1024

    def envelope(scale):
        peaks = [np.exp(-(((bands - scale * peak) / 200) ** 2)) for peak in (600, 1600, 2600, 3600)]
        return 3 * np.sum(peaks, axis=0) - bands / 4000

    assert find_warp(envelope(1.0), envelope(ratio)) == pytest.approx(ratio, abs=0.02)


def test_noise_has_no_voice_and_silence_is_converted_to_silence():
    assert describe_voice([np.zeros(RATE, np.float32)]) is None
    converted = convert(np.zeros(RATE, np.float32), describe_voice(LOW), describe_voice(HIGH))
    assert np.isfinite(converted).all() and np.abs(converted).max() < 1e-6


def test_a_voice_is_described_by_all_its_utterances():
    """Two utterances of 110 Hz and two of 215 Hz have a median between them; the envelope's mean is 0."""
    voice = describe_voice([*LOW, *HIGH])
    assert np.log(110) < voice.pitch < np.log(215)
    assert (
        voice.envelope.mean() == pytest.approx(0, abs=1e-9) and len(voice.envelope) == analyse(LOW[0]).envelope.shape[1]
    )


# ------------------------------------------------------------------------------------------------ commands

SCRIPT = "import shutil, sys; shutil.copy(sys.argv[2], sys.argv[3])"
COPY = f'{sys.executable} -c "{SCRIPT}" {{source}} {{reference}} {{output}}'


def test_a_command_gets_source_and_reference_and_its_output_is_read():
    np.testing.assert_array_equal(run_command(COPY, LOW[0], HIGH[0]), HIGH[0])  # WAV files of floats, not rounded


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-program {source} {reference} {output}", r"--convert_command no-such-program cannot be started"),
        (
            f"{sys.executable} -c \"raise SystemExit('no weights')\" {{source}} {{reference}} {{output}}",
            r"--convert_command failed with status 1 \(no weights\)",
        ),
        (
            f'{sys.executable} -c "pass" {{source}} {{reference}} {{output}}',
            r"--convert_command wrote no file {output}",
        ),
    ],
)
def test_a_command_that_fails_says_why_in_one_line(command, message):
    with pytest.raises(InputError, match=message) as caught:
        run_command(command, LOW[0], HIGH[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [("vc {source} {output}", r"lacks {reference}"), ("vc '{source}", r"cannot be split into words \(No closing")],
)
def test_a_command_is_checked_before_training(command, message):
    with pytest.raises(InputError, match=message):
        check_command(command)
    check_command("vc --from={source} --to {reference} {output}")
