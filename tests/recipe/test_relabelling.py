"""Selection: labels merged, renamed and dropped, rows kept by a column, two corpora as one."""

import pytest
from datasets import Audio, ClassLabel, Dataset

from core.errors import InputError
from recipe.corpora.rows import UNKNOWN_SPEAKER, read_excerpts, speakers_known
from recipe.relabelling import keep_only, map_labels, select_utterances, train_on_one_test_on_another
from recipe.splits import make_split

NAMES = ["neutral", "happy", "excited", "sad", "no_agreement"]


def rows(labels, names=NAMES, speakers=None, folder="one", **columns):
    number = len(labels)
    data = {
        "id": [f"u{i}" for i in range(number)],
        "audio": [f"{folder}/u{i}.wav" for i in range(number)],
        "label": [names.index(label) for label in labels],
        "speaker": speakers or [f"s{i % 4}" for i in range(number)],
        "gender": [("female", "male")[i % 2] for i in range(number)],
        "session": [""] * number,
        "duration": [1.0 + i for i in range(number)],
        **columns,
    }
    dataset = Dataset.from_dict(data).cast_column("audio", Audio(decode=False))
    return dataset.cast_column("label", ClassLabel(names=names))


def words(dataset):
    return [dataset.features["label"].names[index] for index in dataset["label"]]


def test_labels_are_merged_renamed_and_dropped():
    data = rows(["sad", "excited", "no_agreement", "happy", "neutral"])
    mapped = map_labels(data, {"happy": "joy", "excited": "joy", "sad": "sad", "no_agreement": None})
    assert mapped.features["label"].names == ["joy", "sad"]
    assert words(mapped) == ["sad", "joy", "joy"] and mapped["id"][:] == ["u0", "u1", "u3"]
    assert mapped["duration"][:] == [1.0, 2.0, 4.0]


def test_votes_follow_the_labels():
    """Half happy and a quarter excited of what counts is 3/4 of 0.75 + 0.25 sad; votes for neutral alone are none."""
    votes = [[0.0, 0.5, 0.25, 0.25, 0.0], [0.5, 0.0, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0], []]
    data = rows(["happy", "sad", "sad", "excited"], label_distribution=votes)
    mapped = map_labels(data, {"happy": "happy", "excited": "happy", "sad": "sad"})
    assert mapped["label_distribution"][:] == [[0.75, 0.25], [0.5, 0.5], [], []]


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (
            {"hapy": "happy", "sad": "sad"},
            "label_map: the corpus has no label 'hapy'; its labels are neutral, happy, excited",
        ),
        ({"happy": "joy", "excited": "joy"}, "label_map keeps joy of .* keep at least two"),
        ({"happy": None}, "label_map keeps no label of"),
    ],
)
def test_an_impossible_map_is_named(label_map, message):
    with pytest.raises(InputError, match=message):
        map_labels(rows(["happy", "sad"]), label_map)


def test_rows_are_kept_by_column():
    data = rows(["happy", "sad", "neutral", "sad"], style=["improvised", "scripted", "improvised", "improvised"])
    assert keep_only(data, {"style": "improvised"})["id"][:] == ["u0", "u2", "u3"]
    assert keep_only(data, {"style": "improvised", "label": ["sad", "happy"]})["id"][:] == ["u0", "u3"]
    with pytest.raises(InputError, match="only: no row has style='improvized'; valid values are improvised, scripted"):
        keep_only(data, {"style": "improvized"})
    with pytest.raises(InputError, match="only: the corpus has no column 'styl'; its columns are id, audio"):
        keep_only(data, {"styl": "scripted"})


def test_a_label_that_the_kept_rows_do_not_have_is_dropped_and_numbers_are_found():
    data = rows(["happy", "sad", "neutral", "sad"], session=["1", "1", "2", "1"])
    kept = select_utterances(data, {"session": 1}, {})
    assert kept.features["label"].names == ["happy", "sad"] and words(kept) == ["happy", "sad", "sad"]
    numbered = rows(["0", "1"], names=["0", "1", "2"])
    assert words(map_labels(numbered, {0: "angry", 1: "sad"})) == ["angry", "sad"]


def test_one_corpus_trains_and_another_tests():
    """Both call a speaker s0 and an utterance u0; the second has another order of labels and one of its own."""
    first = rows(["happy", "sad", "neutral"] * 4, speakers=[f"s{i // 3}" for i in range(12)])
    second = rows(["bored", "sad", "happy"], names=["sad", "happy", "bored"], speakers=["s0", "s0", "s1"], folder="two")
    split = make_split(train_on_one_test_on_another(first, "one", second, "two"), "one")
    assert split["test"].features["label"].names == ["happy", "sad"]
    assert sorted(zip(split["test"]["id"], words(split["test"]))) == [("two:u1", "sad"), ("two:u2", "happy")]
    assert set(split["test"]["speaker"]) == {"two:s0", "two:s1"}
    assert len(split["train"]) + len(split["validation"]) == 8 and len(split["validation"]) == 2


def test_the_first_corpus_keeps_its_own_validation_and_loses_its_test():
    own = ["train", "train", "validation", "validation", "test", "test"]
    first = rows(["happy", "sad"] * 3, names=["happy", "sad"], speakers=["a", "a", "b", "b", "c", "c"], split=own)
    split = make_split(train_on_one_test_on_another(first, "one", rows(["happy", "sad"], folder="two"), "two"), "one")
    assert set(split["train"]["speaker"]) == {"one:a"} and set(split["validation"]["speaker"]) == {"one:b"}
    assert {utterance.split(":")[0] for utterance in split["test"]["id"]} == {"two"}


def test_two_folders_stay_apart():
    """The same names in both; utterances without speakers keep their marks."""
    marked = [f"{UNKNOWN_SPEAKER}u{i}" for i in range(6)]
    labels = ["happy", "sad"] * 3
    first = rows(labels, names=["happy", "sad"], speakers=marked)
    second = rows(labels, names=["happy", "sad"], speakers=marked, folder="two")
    both = train_on_one_test_on_another(first, "folder", second, "folder")
    split = make_split(both, "folder")
    assert len(split["test"]) == 6 and not speakers_known(split["test"]["speaker"])


def test_two_corpora_without_common_labels_say_both():
    with pytest.raises(InputError, match=r"one \(neutral, happy.*\) and two \(bored, angry\) have no label in common"):
        train_on_one_test_on_another(rows(["happy"]), "one", rows(["bored"], names=["bored", "angry"]), "two")


def test_two_corpora_whose_labels_differ_in_case_are_refused():
    first, second = rows(["happy", "sad"], names=["happy", "sad"]), rows(["Happy", "sad"], names=["Happy", "sad"])
    with pytest.raises(InputError, match="the labels 'Happy' and 'happy' differ only in case or spaces"):
        train_on_one_test_on_another(first, "one", second, "two")


def test_excerpts_of_one_corpus_stay_excerpts_beside_whole_files_of_another():
    first = rows(["happy", "sad"] * 2, start=[0.0, 1.0, 2.0, 3.0], end=[1.0, 2.0, 3.0, 4.0])
    both = train_on_one_test_on_another(first, "one", rows(["happy", "sad"], folder="two"), "two")
    places = {row["id"]: (row["start"], row["end"]) for row in both}
    assert places["one:u1"] == (1.0, 2.0) and places["two:u0"] == (None, None)
    assert [excerpt.is_whole for excerpt in read_excerpts(both[:])] == [False] * 4 + [True] * 2
