"""Every doubtful answer says so at every door, as often as it is given, and under the name of its recording."""

import copy
import os
import re
import warnings

import numpy as np
import pytest
import soundfile
import soxr
from conftest import ROOT, write_wav
from running import lines_of, predict
from transformers import pipeline

from core.loading import load_feature_extractor
from core.shipped import MINI_MODEL
from feature_extraction_ser_align import SERAlignFeatureExtractor
from recipe.preparing import UtterancePreparer
from studies.noises import add_noise, list_noises, make_mains_hum
from studies.sounds import glide
from studies.voice import find_kinds

SPEECH, RATE = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")
TONE = glide(np.full(5 * RATE, 440.0)).astype(np.float32)
CALL = soxr.resample(soxr.resample(SPEECH, RATE, 8000), 8000, RATE)
# What a stranger gives, and what must be said of it.
DOUBTFUL = {
    "silence": (np.zeros(2 * RATE, np.float32), "contains no speech: it is silent"),
    "a tone": (TONE, "sounds unlike speech, or like speech under music or noise"),
    "a telephone": (CALL, "contains no speech above 4 kHz"),
    "noise": (SPEECH + SPEECH.std() * np.random.default_rng(0).standard_normal(len(SPEECH)), "is noisy"),
    "integers as floats": (30_000 * SPEECH, "contains samples of up to"),
    "a syllable": (SPEECH[8000:12000], "contains only 0.25 s of speech at a time"),
    "a long talk": (np.tile(SPEECH, 4), "lasts 2[01] s, but the model was trained on single utterances"),
}


def catch(function, *arguments, **options):
    """What a function returns, and the warnings that a user sees by default."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        found = function(*arguments, **options)
    return found, [str(each.message) for each in caught if each.category is UserWarning]


@pytest.fixture(scope="module")
def classify():
    """The library's own pipeline with the shipped model."""
    return pipeline("audio-classification", str(MINI_MODEL), trust_remote_code=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", DOUBTFUL)
def test_the_librarys_own_pipeline_says_what_is_doubtful_as_often_as_it_is_asked(classify, what):
    waveform, message = DOUBTFUL[what]
    first, second = (catch(classify, waveform)[1] for _ in range(2))
    assert first == second and any(re.match(f"the recording {message}", line) for line in first)
    assert catch(classify, SPEECH)[1] == []


@pytest.mark.slow
def test_the_librarys_own_pipeline_names_each_of_several_and_refuses_what_has_no_scores(classify):
    assert len(catch(classify, [SPEECH, CALL, SPEECH, CALL])[1]) == 2
    for wrong, message in ((SPEECH[:0], "is empty"), (np.append(SPEECH, np.nan), "are not finite")):
        with pytest.raises(ValueError, match=message):
            classify(wrong.astype(np.float32))


def test_a_batch_given_to_the_feature_extractor_names_its_recordings():
    extractor = load_feature_extractor(str(MINI_MODEL))
    _, said = catch(extractor, [SPEECH, CALL, SPEECH, CALL], sampling_rate=RATE)
    assert [line.split()[0] for line in said] == ["recordings[1]", "recordings[3]"]


def test_a_model_of_telephone_speech_warns_of_no_call_and_remembers_it(tmp_path):
    extractor = load_feature_extractor(str(MINI_MODEL))
    assert extractor.bandwidth == 7750
    extractor.bandwidth = 4000
    extractor.save_pretrained(tmp_path)
    again = SERAlignFeatureExtractor.from_pretrained(tmp_path)
    assert catch(again, CALL)[1] == [] and len(catch(SERAlignFeatureExtractor(trim_db=30), CALL)[1]) == 1


def test_training_is_silent_and_its_cache_does_not_depend_on_the_bandwidth(tmp_path):
    path = write_wav(tmp_path / "noise.wav", 2.0)
    extractor = SERAlignFeatureExtractor(trim_db=30)
    preparer = UtterancePreparer(extractor, 400)
    assert catch(preparer.prepare, path)[1] == []
    later = copy.copy(extractor)
    later.bandwidth = 7750
    assert UtterancePreparer(later, 400)._extraction == preparer._extraction
    assert "bandwidth" not in preparer._extraction


def test_every_answer_has_its_own_warning_even_if_the_text_is_the_same(recognize):
    for recordings in ([CALL], [SPEECH, CALL, CALL], (each for each in (CALL, SPEECH))):
        count = 2 if isinstance(recordings, list) and len(recordings) == 3 else 1
        found, said = catch(lambda given: list(recognize(given, return_timeline=True)), recordings)
        assert [line for answer in found for line in answer["warnings"]] == said and len(said) == count
    for _ in range(2):
        _, said = catch(recognize, CALL)
        assert len(said) == 1 and said[0].startswith("the recording ")
    _, said = catch(recognize, [SPEECH, CALL, {"array": CALL, "sampling_rate": RATE, "path": "a.wav"}])
    assert [line.split()[0] for line in said] == ["recordings[1]", "a.wav"]


def test_what_stops_a_list_is_named_by_its_place(recognize):
    with pytest.raises(ValueError, match="contains no speech") as caught:
        recognize([SPEECH, np.zeros(RATE, np.float32)])
    assert caught.value.__notes__ == ["while reading recordings[1]"]
    with pytest.raises(ValueError, match=r"the number 16000 is not .* as a tuple, \(waveform, rate\)"):
        recognize([SPEECH, RATE])


def test_a_user_can_silence_warnings_or_make_them_errors(recognize):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        recognize(TONE)
    assert caught == []
    with warnings.catch_warnings(), pytest.raises(UserWarning, match="sounds unlike speech"):
        warnings.simplefilter("error")
        recognize(TONE)


def test_a_channel_is_judged_and_named_by_itself(recognize):
    clipped = np.clip(100 * SPEECH, -1, 1)
    stereo = np.stack([SPEECH, clipped], axis=1)
    assert catch(recognize, (stereo, RATE), channel=0)[1] == []
    _, (said,) = catch(recognize, (stereo, RATE), channel=1)
    assert said.startswith("the recording (channel 1) is clipped")


@pytest.mark.parametrize("seconds", [0.2, 0.3])
def test_a_clip_of_less_than_half_a_second_is_said_to_be_short(recognize, seconds):
    clip = SPEECH[8000 : 8000 + int(seconds * RATE)]
    for waveform in (clip, np.pad(clip, RATE), np.tile(np.pad(clip, RATE // 2), 20)):
        said = catch(recognize, waveform, return_timeline=True)[0]["warnings"]
        assert any("s of speech at a time, which is too little for reliable scores" in line for line in said)


def test_an_empty_timeline_says_why(recognize):
    clip = SPEECH[8000:11200]
    answer, said = catch(recognize, clip, return_timeline=True)
    assert answer["timeline"] == [] and answer["warnings"] == said
    assert "the timeline of the recording is empty: it has no segment of at least 0.3 s; give a smaller" in said[-1]
    answer, said = catch(recognize, clip, return_timeline=True, min_duration=0.1)
    assert len(answer["timeline"]) == 1 and not any("timeline" in line for line in said)


@pytest.mark.parametrize("snr", [10, 0])
def test_a_steady_hum_is_warned_of_and_clean_speech_is_not(snr):
    rng = np.random.default_rng(0)
    assert find_kinds(add_noise(SPEECH, make_mains_hum, snr, rng)) == ["hum"]
    assert find_kinds(SPEECH) == find_kinds(np.pad(SPEECH, 3 * RATE)) == []


def test_noises_have_the_power_that_they_claim():
    for name, noise in list_noises([SPEECH]).items():
        waveforms = [add_noise(SPEECH, noise, snr, np.random.default_rng(0)) - SPEECH for snr in (20, 0)]
        powers = [10 * np.log10(np.mean(np.square(each, dtype=float))) for each in waveforms]
        assert powers[1] - powers[0] == pytest.approx(20, abs=0.01), name


@pytest.mark.slow
def test_each_channel_of_a_file_has_its_warning_on_the_terminal_and_in_its_record(tmp_path):
    path, output = tmp_path / "call.wav", tmp_path / "out.jsonl"
    soundfile.write(path, np.stack([SPEECH, np.resize(TONE, len(SPEECH)), SPEECH], axis=1), RATE)
    run = predict(path, "--channels", "each", "--output", output)
    said = [line for line in run.stderr.splitlines() if line.startswith("warning: ")]
    assert said and all(line.startswith(f"warning: {path} (channel 1) ") for line in said)
    assert [len(record["warnings"]) for record in lines_of(output)] == [0, len(said), 0]


@pytest.mark.slow
def test_the_page_says_what_the_pipeline_says(recognize, tmp_path):
    from demo.answers import answer_upload

    os.makedirs(tmp_path / "upload")
    soundfile.write(tmp_path / "upload" / "clip.wav", SPEECH[8000:11200], RATE)
    _, page = answer_upload(recognize, str(tmp_path / "upload" / "clip.wav"))
    assert '<p class="wrong">clip.wav contains only 0.2' in page
    assert '<p class="wrong">the timeline of clip.wav is empty' in page and str(tmp_path) not in page
