"""Speech is told from noise, tones, machines and music; and speech in noise is said to be so."""

import io
import json
import os
import warnings

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from running import lines_of, predict

from inference.live import answer_live, open_stream
from quality_ser_align import RecordingQuality, measure_power
from recording_ser_align import read_blocks
from studies.bandwidth import CORPORA
from studies.sounds import SOUNDS, beep, glide, hum, make_noise
from studies.voice import CHANGED, add_noise, find_kinds, measure_quality
from voice_ser_align import measure_periodicity

SPEECH, RATE = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")
SAID = "sounds unlike speech, or like speech under music or noise: it"
MISSED = {
    "fast siren, 600 to 1400 Hz",
    "fast siren, 150 to 300 Hz",
    "drums at 90",
    "drums at 110",
}  # docs/RELIABILITY.md


@pytest.mark.parametrize("group", SOUNDS)
def test_what_is_not_a_voice_is_warned_of(group):
    kinds = {name: find_kinds(make()) for name, make in SOUNDS[group].items()}
    assert {name for name, found in kinds.items() if "voice" not in found} == MISSED & kinds.keys()
    assert all(kinds.values()), "nothing is answered in silence"


def test_speech_is_not_warned_of_in_whatever_state_it_is():
    assert find_kinds(SPEECH) == []
    for level in (0.01, 20):
        assert "voice" not in find_kinds(level * SPEECH)
    for change in CHANGED.values():
        assert "voice" not in find_kinds(change(SPEECH))
    mains = np.resize(hum(50), len(SPEECH))
    assert "voice" not in find_kinds(SPEECH + 0.3 * SPEECH.std() * mains / mains.std())
    minute = 0.0005 * make_noise() / 0.1  # a phrase in a minute of room noise
    memo = np.resize(minute, 60 * RATE)
    memo[20 * RATE : 20 * RATE + len(SPEECH)] += SPEECH
    assert find_kinds(memo) == []


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_no_utterance_of_the_corpora_is_warned_of(corpus, corpora):
    """Every file is in docs/RELIABILITY.md; here, thirty of each corpus."""
    files = sorted(corpora.glob(CORPORA[corpus]))
    if not files:
        pytest.skip(f"{corpora} does not hold {corpus}")
    for path in files[:: len(files) // 30]:
        waveform = np.concatenate(list(read_blocks(path)))
        assert find_kinds(waveform) == [], path.name
        assert find_kinds(CHANGED["through 8 kHz"](waveform)) == ["bandwidth"], path.name
        assert find_kinds(add_noise(waveform, 0))[-1] in ("noise", "voice"), path.name


def test_noise_is_warned_of_from_ten_decibels_below_the_speech():
    for snr_db, expected in ((30, []), (10, ["noise"]), (0, ["noise"])):
        assert find_kinds(add_noise(SPEECH, snr_db)) == expected
    said = measure_quality(add_noise(SPEECH, 0)).find_problems("call.wav", None)["noise"]
    assert said.startswith("call.wav is noisy: noise masks all but the loudest 2")


@pytest.mark.parametrize("pitch", [75.0, 110.0, 220.0, 440.0])
def test_the_pitch_is_that_of_the_buzz_and_noise_has_none(pitch):
    times = np.arange(2 * RATE) / RATE
    pulses = np.sum([np.cos(2 * np.pi * pitch * n * times) for n in range(1, int(1500 / pitch) + 1)], axis=0)
    strengths, pitches, levels = measure_periodicity(measure_power(pulses.astype(np.float32)))
    assert strengths.min() > 0.8 and np.ptp(levels) < 1
    periods = pitch / pitches  # the best lag may be several of them
    np.testing.assert_allclose(periods, np.rint(periods), rtol=0.01)
    noise = measure_periodicity(measure_power(make_noise().astype(np.float32)))[0]
    assert np.mean(noise > 0.55) < 0.02


def test_periodicity_is_the_autocorrelation_of_the_harmonics():
    """Against the definition, a sum over the samples of one frame, without a spectrum."""
    frame = SPEECH[8000 : 8000 + 1024].astype(np.float64)
    spectrum = np.fft.rfft(frame * np.hanning(1024))
    frequencies = np.fft.rfftfreq(1024, 1 / RATE)
    spectrum *= np.sqrt(np.where((frequencies >= 82) & (frequencies <= 1500), frequencies / 1000, 0))
    filtered, window = np.fft.irfft(spectrum), np.hanning(1024)
    best = max(
        float(np.dot(filtered, np.roll(filtered, lag)) / np.dot(filtered, filtered))
        / float(np.dot(window[lag:], window[: 1024 - lag]) / np.dot(window, window))
        for lag in range(35, 230)
    )
    found = measure_periodicity(measure_power(frame.astype(np.float32)))[0]
    assert found == pytest.approx([best], abs=1e-3)


def test_blocks_of_any_length_and_a_second_of_sound_decide():
    noise = make_noise().astype(np.float32)
    for seconds in (0.5, 0.9, 1.2, 5):
        assert ("voice" in find_kinds(noise[: int(seconds * RATE)])) == (seconds > 1)
    quality = RecordingQuality()
    for start in range(0, len(SPEECH), RATE):
        quality.add_spectra(SPEECH[start : start + RATE])
    whole = measure_quality(SPEECH).voice
    assert quality.voice.measure_changing_share() == pytest.approx(whole.measure_changing_share(), abs=0.1)
    assert quality.voice.measure_voiced_share() == pytest.approx(whole.measure_voiced_share(), abs=0.1)


def test_a_stream_may_begin_with_the_noise_of_a_room(recognize):
    room = 0.02 * SPEECH.std() * np.random.default_rng(0).standard_normal(2 * RATE)
    for waveform, expected in ((np.concatenate([room, SPEECH, SPEECH]), False), (np.tile(beep(440, 0.4), 2), True)):
        content = (32767 * waveform).astype("<i2").tobytes()
        quality = RecordingQuality()
        _, seconds = open_stream(io.BytesIO(content), quality)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answers = list(answer_live(recognize, seconds, quality))
        assert any(SAID in str(each.message) for each in caught) == expected
        assert any(SAID in line for line in answers[-1]["warnings"]) == expected


@pytest.mark.slow
def test_every_output_says_that_there_is_no_voice(recognize, tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, glide(np.full(5 * RATE, 440.0)), RATE)
    with pytest.warns(UserWarning, match=SAID):
        recognize(str(path))
    with pytest.warns(UserWarning, match=SAID):
        said = recognize(str(path), return_timeline=True)["warnings"]  # also that it hums
    run = predict(path, "--output", tmp_path / "out.jsonl")
    assert f"warning: {path} {SAID}" in run.stderr
    assert lines_of(tmp_path / "out.jsonl")[0]["warnings"] == said

    from demo.answers import answer_upload

    os.makedirs(tmp_path / "upload")
    os.rename(path, tmp_path / "upload" / "tone.wav")
    assert f'<p class="wrong">tone.wav {SAID}' in answer_upload(recognize, str(tmp_path / "upload" / "tone.wav"))[1]
    assert json.dumps(said).isascii()
