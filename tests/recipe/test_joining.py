"""Several corpora as one: names that stay apart, labels in one order, each split by its own protocol."""

import pytest
from making import labelled_rows as rows
from making import speakers_of, words

from core.errors import InputError
from recipe.corpora.rows import UNKNOWN_SPEAKER, read_excerpts, speakers_known
from recipe.data import split_rows
from recipe.joining import join_rows, order_labels
from recipe.options import DataArguments

PAIR = ["happy", "sad"]


def train_on_one_test_on_another(first, second, corpus="savee", test_corpus="folder"):
    data = DataArguments(corpus=corpus, test_corpus=test_corpus)
    name = test_corpus if test_corpus != corpus else f"{corpus} 2"
    return split_rows(data, join_rows({corpus: first, name: second}))


def joint(*entries, **options):
    return DataArguments(corpora=[{"corpus": "folder", **entry} for entry in entries], **options)


def three_corpora():
    """Of four speakers each, who have the same names in all, with two utterances of each label."""
    return {name: rows(PAIR * 4, names=PAIR, speakers=[f"s{i // 2}" for i in range(8)], folder=name) for name in "abc"}


def test_one_corpus_trains_and_another_tests():
    """Both call a speaker s0 and an utterance u0; the second has another order of labels and one of its own."""
    first = rows(["happy", "sad", "neutral"] * 4, speakers=[f"s{i // 3}" for i in range(12)])
    second = rows(["bored", "sad", "happy"], names=["sad", "happy", "bored"], speakers=["s0", "s0", "s1"], folder="two")
    split = train_on_one_test_on_another(first, second)
    assert split["test"].features["label"].names == ["happy", "sad"]
    assert sorted(zip(split["test"]["id"], words(split["test"]))) == [("folder/u1", "sad"), ("folder/u2", "happy")]
    assert set(split["test"]["speaker"]) == {"folder/s0", "folder/s1"}
    assert len(split["train"]) + len(split["validation"]) == 8 and len(split["validation"]) == 2


def test_the_first_corpus_keeps_its_own_validation_and_loses_its_test():
    own = ["train", "train", "validation", "validation", "test", "test"]
    first = rows(PAIR * 3, names=PAIR, speakers=["a", "a", "b", "b", "c", "c"], split=own)
    split = train_on_one_test_on_another(first, rows(PAIR, folder="two"))
    assert set(split["train"]["speaker"]) == {"savee/a"} and set(split["validation"]["speaker"]) == {"savee/b"}
    assert {utterance.split("/")[0] for utterance in split["test"]["id"]} == {"folder"}


def test_two_folders_stay_apart():
    """The same names in both; utterances without speakers keep their marks."""
    marked = [f"{UNKNOWN_SPEAKER}u{i}" for i in range(6)]
    first = rows(PAIR * 3, names=PAIR, speakers=marked)
    second = rows(PAIR * 3, names=PAIR, speakers=marked, folder="two")
    split = train_on_one_test_on_another(first, second, "folder", "folder")
    assert len(split["test"]) == 6 and not speakers_known(split["test"]["speaker"])


def test_two_corpora_without_common_labels_say_both():
    with pytest.raises(InputError, match=r"savee \(happy, sad\) and folder \(angry, bored\) have no label in common"):
        train_on_one_test_on_another(rows(PAIR * 2, names=PAIR), rows(["bored", "angry"], names=["bored", "angry"]))


def test_two_corpora_whose_labels_differ_in_case_are_refused():
    first, second = rows(PAIR, names=PAIR), rows(["Happy", "sad"], names=["Happy", "sad"])
    with pytest.raises(InputError, match="the labels 'Happy' and 'happy' differ only in case, spaces, quotes or"):
        join_rows({"one": first, "two": second})


def test_excerpts_of_one_corpus_stay_excerpts_beside_whole_files_of_another():
    first = rows(PAIR * 2, start=[0.0, 1.0, 2.0, 3.0], end=[1.0, 2.0, 3.0, 4.0])
    both = join_rows({"one": first, "two": rows(PAIR, folder="two")})
    places = {(row["corpus"], row["id"]): (row["start"], row["end"]) for row in both}
    assert places["one", "u1"] == (1.0, 2.0) and places["two", "u0"] == (None, None)
    assert [excerpt.is_whole for excerpt in read_excerpts(both[:])] == [False] * 4 + [True] * 2


def test_labels_have_one_order_whatever_the_order_of_the_corpora():
    first, second = (
        rows(["sad", "bored"], names=["sad", "bored"]),
        rows(["angry", "neutral"], names=["angry", "neutral"]),
    )
    for corpora in ({"a": first, "b": second}, {"b": second, "a": first}):
        joined = join_rows(corpora)
        assert joined.features["label"].names == ["neutral", "sad", "angry", "bored"]
        assert sorted(words(joined)) == ["angry", "bored", "neutral", "sad"]
    assert order_labels(["2", "calm", "10", "neutral"]) == ["neutral", "calm", "2", "10"]


def test_each_corpus_is_split_by_its_own_protocol_and_use():
    corpora = three_corpora() | {"d": rows(PAIR, names=PAIR, folder="d")}
    data = joint(
        {"name": "a", "protocol": "leave_one_speaker_out", "fold": 2, "num_validation_speakers": 1},
        {"name": "b", "use": "train"},
        {"name": "c", "use": "test"},
        {"name": "d", "use": "train"},
    )
    parts = speakers_of(split_rows(data, join_rows(corpora)))
    assert parts["test"] == {"a/s1", "c/s0", "c/s1", "c/s2", "c/s3"}
    assert len(parts["validation"]) == 1 and parts["validation"] < {"a/s0", "a/s2", "a/s3"}
    everyone = {f"{name}/s{number}" for name in "abc" for number in range(4)} | {"d/s0", "d/s1"}
    assert parts["train"] == everyone - parts["test"] - parts["validation"]


def test_the_folds_across_corpora_test_each_corpus_and_train_on_each():
    rows_of_all = join_rows(three_corpora())
    entries = [{"name": name, "num_folds": 2} for name in "abc"]
    for fold, name in enumerate("abc", start=1):
        split = split_rows(joint(*entries, protocol="leave_one_corpus_out", fold=fold), rows_of_all)
        parts = {part: {speaker[0] for speaker in speakers} for part, speakers in speakers_of(split).items()}
        others = set("abc") - {name}
        assert parts == {"train": others, "validation": others, "test": {name}} and len(split["test"]) == 8
        alone = speakers_of(split_rows(joint(*entries, protocol="cross_corpus", fold=3 + fold), rows_of_all))
        assert {speaker[0] for speaker in alone["train"] | alone["validation"]} == {name}
        second = speakers_of(split_rows(joint(*entries, protocol="cross_corpus", fold=6 + fold), rows_of_all))
        own = [{speaker for speaker in parts["test"] if speaker[0] == name} for parts in (alone, second)]
        assert len(alone["test"]) == len(second["test"]) == 2 + 4 + 4
        assert own[0] | own[1] == {f"{name}/s{number}" for number in range(4)} and not own[0] & own[1]
    with pytest.raises(InputError, match="a: --fold 3 is not one of the 2 folds"):
        split_rows(joint(*entries, protocol="cross_corpus", fold=10), rows_of_all)
    with pytest.raises(InputError, match="--fold 4 is not one of the 3 folds of leave_one_corpus_out: give 1 to 3"):
        split_rows(joint(*entries, protocol="leave_one_corpus_out", fold=4), rows_of_all)


def test_a_label_that_no_training_corpus_has_is_refused_or_dropped():
    corpora = three_corpora()
    corpora["b"] = rows([*PAIR, "bored"], names=[*PAIR, "bored"], folder="b")
    entries = ({"name": "a", "use": "train_validation"}, {"name": "b", "use": "test"})
    corpora.pop("c")
    with pytest.raises(InputError, match=r"no training utterance is labelled bored: drop .* --common_labels"):
        split_rows(joint(*entries), join_rows(corpora))
    assert words(split_rows(joint(*entries, common_labels=True), join_rows(corpora))["test"]) == PAIR


def test_a_label_that_one_training_corpus_lacks_is_kept():
    corpora = three_corpora()
    corpora["b"] = rows(["bored"] * 4, names=["bored"], folder="b")
    split = split_rows(
        joint({"name": "a", "num_folds": 2}, {"name": "b", "use": "train"}), join_rows({n: corpora[n] for n in "ab"})
    )
    assert split["train"].features["label"].names == [*PAIR, "bored"] and words(split["train"]).count("bored") == 4


def test_a_file_in_the_training_set_of_one_corpus_and_the_test_set_of_another_is_refused():
    corpora = {name: rows(PAIR * 4, names=PAIR, folder="same") for name in "ab"}
    data = joint({"name": "a", "use": "train_validation"}, {"name": "b", "use": "test"})
    with pytest.raises(InputError, match=r"file .*same/u.*wav' is in both train and test"):
        split_rows(data, join_rows(corpora))
