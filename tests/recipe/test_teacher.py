"""Distillation: labels between the true one and the answer of a teacher that heard no one else."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import tiny_model, write_wav
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from running import SHORT, train
from transformers import Wav2Vec2FeatureExtractor

from core.errors import InputError
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.augmentation import Augmentation
from recipe.batching import Collator
from recipe.options import Arguments
from recipe.preparing import AudioCache, UtterancePreparer
from recipe.teacher import Teacher, find_teacher

LABELS = ["calm", "angry", "sad"]


@pytest.fixture
def folder(tmp_path):
    """A teacher whose classes are in another order, trained on the speakers a and b."""
    names = {0: "sad", 1: "calm", 2: "happy", 3: "angry"}
    model = tiny_model(id2label=names, label2id={name: index for index, name in names.items()})
    folder = tmp_path / "teacher"
    SpeechEmotionRecognitionPipeline(model=model, feature_extractor=Wav2Vec2FeatureExtractor()).save_pretrained(folder)
    (folder / "results.json").write_text(json.dumps({"speakers": {"train": ["a", "b"]}}))
    return folder


def make_split(speakers=("a", "b", "c"), labels=LABELS):
    features = Features({"speaker": Value("string"), "label": ClassLabel(names=labels)})
    rows = Dataset.from_dict({"speaker": list(speakers), "label": [0] * len(speakers)}, features=features)
    return DatasetDict({"train": rows})


def arguments(folder, weight=0.5):
    args = Arguments()
    args.trainer.teacher, args.trainer.teacher_weight = str(folder), weight
    return args


def reference(folder, waveform, label, weight):
    """In NumPy: the teacher's softmax over the classes of the student alone, mixed with the one-hot label."""
    model = SERAlignForAudioClassification.from_pretrained(folder).eval()
    inputs = Wav2Vec2FeatureExtractor()(waveform, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        sad, calm, _, angry = model(**inputs).logits[0].double().numpy()
    powers = np.exp(np.array([calm, angry, sad]))
    return weight * powers / powers.sum() + (1 - weight) * np.eye(3)[label]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_label_lies_between_the_true_one_and_the_answer_of_the_teacher(folder, weight):
    waveform = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    teacher = find_teacher(arguments(folder, weight), make_split())
    for label in range(3):
        expected = reference(folder, waveform, label, weight)
        np.testing.assert_allclose(teacher.soften(teacher.extract(waveform), label).numpy(), expected, atol=1e-6)
    copy, features = pickle.loads(pickle.dumps(teacher)), teacher.extract(waveform)
    assert torch.equal(copy.soften(features, 1), teacher.soften(features, 1))


@pytest.mark.parametrize("mixed", [0.0, 1.0])
def test_the_teacher_hears_what_the_student_hears(folder, mixed, tmp_path):
    path = write_wav(tmp_path / "a.wav", 1.0)
    teacher = Teacher(str(folder), LABELS, 0.5)
    augmentation = Augmentation((1.1,), mix_probability=mixed)
    preparer = UtterancePreparer(
        Wav2Vec2FeatureExtractor(), 400, augmentation=augmentation, num_labels=3, cache=AudioCache(), teacher=teacher
    )
    columns = {"audio": [{"path": str(path)}], "label": [2], "id": ["a"]}
    expected = teacher.soften(teacher.extract(preparer.read_waveform(path, augmentation.variants()[0])), 2)
    for _ in range(2):  # the second time from the cache
        (label,) = preparer(columns)["labels"]
        torch.testing.assert_close(label, expected)  # mixed with itself, since the batch has no other
    preparer.teacher = Teacher(str(folder), LABELS, 0.0)  # of another stage, with the same cache
    assert preparer(columns)["labels"][0].tolist() == [0, 0, 1]


def test_frames_are_those_that_the_teacher_computes_from_the_same_audio(folder, tmp_path):
    paths = [write_wav(tmp_path / f"{seconds}.wav", seconds) for seconds in (0.5, 1.0)]
    teacher = Teacher(str(folder), LABELS, 0.5, gives_frames=True)
    augmentation = Augmentation((1.1,))
    extractor = Wav2Vec2FeatureExtractor()
    preparer = UtterancePreparer(extractor, 400, augmentation=augmentation, cache=AudioCache(), teacher=teacher)
    prepared = preparer({"audio": [{"path": str(path)} for path in paths], "label": [2, 0], "id": ["a", "b"]})
    batch = Collator("input_values")([dict(zip(prepared, values)) for values in zip(*prepared.values())])
    model = SERAlignForAudioClassification.from_pretrained(folder).eval()
    for path, found in zip(paths, batch["teacher_frames"]):
        waveform = preparer.read_waveform(path, augmentation.variants()[0])
        inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt", return_attention_mask=False)
        with torch.no_grad():
            (expected,), _ = model.encode(**inputs)
        torch.testing.assert_close(found[: len(expected)].float(), expected, atol=2e-3, rtol=2e-3)  # float16
        assert not found[len(expected) :].any()


def test_without_a_teacher_labels_are_what_they_were(tmp_path):
    assert find_teacher(Arguments(), make_split()) is None
    preparer = UtterancePreparer(Wav2Vec2FeatureExtractor(), 400)
    columns = {"audio": [{"path": str(write_wav(tmp_path / "a.wav"))}], "label": [2], "id": ["a"]}
    assert preparer(columns)["labels"] == [2]


@pytest.mark.parametrize(
    ("split", "weight", "message"),
    [
        (make_split(["a", "c"]), 0.5, "was trained on 1 speakers who do not train this run, such as 'b'"),
        (make_split(labels=["calm", "bored"]), 0.5, "knows sad, calm, happy, angry, but not bored"),
        (make_split(), 1.5, "--teacher_weight 1.5 is not a weight"),
    ],
)
def test_a_teacher_that_would_spoil_the_scores_is_refused(folder, split, weight, message):
    with pytest.raises(InputError, match=message):
        find_teacher(arguments(folder, weight), split)


def test_frames_of_mixtures_are_refused(folder):
    args = arguments(folder)
    args.model.frame_distillation_weight, args.data.mix_probability = 1.0, 0.3
    with pytest.raises(InputError, match="the teacher, who does not hear mixtures: set --mix_probability 0"):
        find_teacher(args, make_split())


def test_a_teacher_without_results_or_weights_is_refused(folder):
    (folder / "results.json").unlink()
    with pytest.raises(InputError, match=r"has no results\.json, which names the speakers"):
        find_teacher(arguments(folder), make_split())
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"--teacher .* is neither a shipped model \(base, mini\), nor a folder"):
        find_teacher(arguments(folder), make_split())


@pytest.mark.slow
def test_a_run_learns_from_a_teacher_says_so_and_knows_it_again(short_run, demo, tmp_path):
    teacher = shutil.copytree(short_run[0] / "stage1", tmp_path / "first teacher")
    argv = [*SHORT, "--data_dir", demo, "--output_dir", tmp_path / "run", "--stage", "1", "--teacher", teacher]
    argv += ["--frame_distillation_weight", "0.5"]
    train(*argv)
    card = (tmp_path / "run" / "stage1" / "README.md").read_text(encoding="utf-8")
    assert "50 % of each training label are the probabilities that the model `first teacher` gives" in card
    assert "0.5 × distance of the frames from those of the teacher" in card
    assert "frame_distillation_loss" in (tmp_path / "run" / "stage1" / "training_log.jsonl").read_text()
    plain, taught = (folder / "stage1" / "model.safetensors" for folder in (short_run[0], tmp_path / "run"))
    assert plain.read_bytes() != taught.read_bytes()
    assert "already finished" in train(*argv).stdout
    shutil.copytree(short_run[0] / "stage2", teacher, dirs_exist_ok=True)
    assert "another teacher" in train(*argv, expect=1).stderr
    assert "frame_distillation_weight=0.5, not 0.0 (1 more differ)" in train(*argv[:-4], expect=1).stderr
    train(*SHORT, "--data_dir", demo, "--output_dir", tmp_path / "run", "--stage", "2")
    config = json.loads((tmp_path / "run" / "stage2" / "config.json").read_text())
    assert (config["teacher_size"], config["frame_distillation_weight"]) == (None, 0.0)
