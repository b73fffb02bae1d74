"""Splits: published folds, seeded validation, and no speaker in two parts."""

from collections import Counter

import pytest
from datasets import DatasetDict
from making import make_split, rows, speakers_of

from core.errors import InputError
from recipe.corpora import SPEAKERS
from recipe.corpora.cremad import TEST_ACTORS as CREMAD_TEST_ACTORS
from recipe.splits import RAVDESS_TEST_ACTORS, check_split

RAVDESS = rows([f"{actor:02d}" for actor in range(1, 25)])


def test_the_six_ravdess_folds_are_the_published_ones():
    tested = []
    for fold, actors in enumerate(RAVDESS_TEST_ACTORS, start=1):
        parts = speakers_of(make_split(RAVDESS, "ravdess", fold, num_validation_speakers=4))
        assert parts["test"] == set(actors)
        assert len(parts["validation"]) == 4 and len(parts["train"]) == 16
        assert not parts["train"] & parts["validation"] and not parts["test"] & (parts["train"] | parts["validation"])
        assert sum(int(s) % 2 for s in parts["validation"]) == 2  # two women, two men
        tested += actors
    assert sorted(tested) == [f"{actor:02d}" for actor in range(1, 25)]


def test_validation_depends_on_the_seed_alone():
    same = [speakers_of(make_split(RAVDESS, "ravdess", 1, seed=3))["validation"] for _ in range(2)]
    assert same[0] == same[1]
    assert any(speakers_of(make_split(RAVDESS, "ravdess", 1, seed=s))["validation"] != same[0] for s in range(5))


def test_folds_by_speaker_test_everyone_once_without_sharing():
    data = rows([str(s) for s in range(10)])
    tested = []
    for fold in range(1, 6):
        parts = speakers_of(make_split(data, "demo", fold, num_folds=5))
        assert not parts["test"] & (parts["train"] | parts["validation"])
        tested += parts["test"]
    assert sorted(tested) == sorted(str(s) for s in range(10))


def test_folds_by_speaker_are_balanced_by_gender():
    data = rows([str(s) for s in range(12)])
    for fold in range(1, 7):
        test = speakers_of(make_split(data, "demo", fold, num_folds=6))["test"]
        assert sorted(int(s) % 2 for s in test) == [0, 1]


def test_of_iemocap_the_man_of_a_session_validates_and_the_woman_tests():
    data = rows(
        [f"{session}{gender}" for session in "12345" for gender in "FM"],
        session=lambda s: s[0],
        gender=lambda s: {"F": "female", "M": "male"}[s[1]],
    )
    for fold in range(1, 6):
        parts = speakers_of(make_split(data, "iemocap", fold))
        assert parts["test"] == {f"{fold}F"} and parts["validation"] == {f"{fold}M"}
        assert parts["train"] == {s for s in data["speaker"] if s[0] != str(fold)}
    with pytest.raises(InputError, match="--fold 6 is not one of the 5 folds of iemocap"):
        make_split(data, "iemocap", 6)
    by_speaker = speakers_of(make_split(data, "iemocap", 10, protocol="leave_one_speaker_out"))
    assert by_speaker["test"] == {"5M"} and len(by_speaker["train"]) + len(by_speaker["validation"]) == 9


def test_a_session_of_another_make_up_tests_whole():
    data = rows(list("abcdef"), session=lambda s: {"a": "1", "b": "1", "c": "1"}.get(s, "2"))
    parts = speakers_of(make_split(data, "demo", 1, num_validation_speakers=1, protocol="leave_one_session_out"))
    assert parts["test"] == set("abc") and len(parts["validation"]) == 1 and len(parts["train"]) == 2
    with pytest.raises(InputError, match="leave_one_session_out: demo has utterances without a session"):
        make_split(rows(list("abc"), session=lambda s: ""), "demo", 1, protocol="leave_one_session_out")


def test_cremad_tests_its_listed_actors():
    data = rows([str(actor) for actor in range(1001, 1092)], per_class=1)
    tested = []
    for fold, actors in enumerate(CREMAD_TEST_ACTORS, start=1):
        parts = speakers_of(make_split(data, "cremad", fold, num_validation_speakers=14))
        assert parts["test"] == set(actors)
        tested += actors
    assert sorted(tested) == [str(actor) for actor in range(1001, 1092)]


def test_a_given_split_is_kept_and_validation_comes_from_training_speakers():
    data = rows(list("abcdef"), split=lambda s: "test" if s in "ef" else "train")
    parts = speakers_of(make_split(data, "folder", num_validation_speakers=1))
    assert parts["test"] == {"e", "f"} and len(parts["validation"]) == 1 and len(parts["train"]) == 3
    data = rows(list("abcdef"), split=lambda s: {"e": "test", "f": "validation"}.get(s, "train"))
    assert speakers_of(make_split(data, "folder"))["validation"] == {"f"}


def test_a_given_split_is_the_only_fold():
    data = rows(list("abcd"), split=lambda s: "test" if s == "d" else "train")
    with pytest.raises(InputError, match="--fold 2: the corpus has a split column"):
        make_split(data, "folder", fold=2)


def test_a_protocol_does_not_meet_a_given_split():
    data = rows(list("abcd"), split=lambda s: "test" if s == "d" else "train")
    with pytest.raises(InputError, match="--protocol leave_one_speaker_out: the corpus has a split column"):
        make_split(data, "folder", protocol="leave_one_speaker_out")


def test_more_folds_than_utterances_of_a_class_are_refused():
    speakers = [f"s{i}" for i in range(12)]
    data = rows(speakers, per_class=1, labels=("angry", "sad")).filter(
        lambda row: row["label"] == int(row["speaker"][1:]) % 2
    )
    with pytest.raises(InputError, match="--num_folds 12: no class has that many utterances"):
        make_split(data, "folder", num_folds=12)


def test_a_class_that_is_not_tested_is_said(capsys):
    data = rows(list("abcd"))
    check_split(DatasetDict(train=_part(data, "ab"), test=_part(data, "c").filter(lambda row: row["label"] > 0)))
    assert "no test utterance is labelled 'angry'; UA ignores this class" in capsys.readouterr().err


def test_a_label_that_is_no_class_is_named():
    """-1 is how datasets marks an utterance without a label; Python would take it for the last class."""
    data = rows(list("abc"))
    marked = data.map(lambda row: {"label": -1 if row["id"] == "b-0-0" else row["label"]})
    with pytest.raises(InputError, match="utterance 'b-0-0' has label -1, which is not one of the 3 classes"):
        check_split(DatasetDict(train=_part(marked, "a"), validation=_part(marked, "b"), test=_part(marked, "c")))


def test_shared_speakers_fold_utterances_balanced_by_class():
    """Each utterance is tested once and validates once; another seed draws others."""
    data = rows(list("abcd"), per_class=25)
    tested = []
    for fold in range(1, 6):
        parts = make_split(data, "ravdess", fold, protocol="shared_speakers")
        assert list(speakers_of(parts).values()) == 3 * [set("abcd")]
        for name, number in (("train", 60), ("validation", 20), ("test", 20)):
            assert set(Counter(parts[name]["label"][:]).values()) == {number}
        ids = [set(part["id"][:]) for part in parts.values()]
        assert len(set.union(*ids)) == len(data)
        tested += ids[2]
    assert sorted(tested) == sorted(data["id"][:])
    assert set(make_split(data, "ravdess", 5, seed=1, protocol="shared_speakers")["test"]["id"][:]) != ids[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_folds": 9}, "--num_folds 9 is not between 3 and 8, the utterances of the rarest class"),
        ({"num_folds": 2}, "--num_folds 2 is not between 3 and 8"),
        ({"fold": 6}, "--fold 6 is not one of the 5 folds of --protocol shared_speakers"),
    ],
)
def test_folds_of_utterances_that_there_are_not_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_split(rows(list("ab"), per_class=4), "demo", protocol="shared_speakers", **options)


def _part(data, speakers):
    return data.filter(lambda row: row["speaker"] in speakers)


def test_a_speaker_in_two_parts_is_named():
    data = rows(list("abc"))
    data = data.add_column("split", ["train", "train", "train", "train", "test", "test"] * 3)
    with pytest.raises(InputError, match="speaker 'b' is in both train and test"):
        make_split(data, "folder")


def test_an_utterance_in_two_parts_and_a_class_without_training_are_named():
    data = rows(list("ab"))
    other_name = data.map(lambda row: {"speaker": row["speaker"] + "x"})
    with pytest.raises(InputError, match="utterance 'a-0-0' is in both train and test"):
        check_split(DatasetDict(train=data, test=other_name))
    other_id = other_name.map(lambda row: {"id": row["id"] + "x"})
    with pytest.raises(InputError, match=r"file '.*a-0-0.wav' is in both train and test"):
        check_split(DatasetDict(train=data, test=other_id))
    with pytest.raises(InputError, match="no training utterance is labelled 'angry'"):
        check_split(DatasetDict(train=data.filter(lambda row: row["label"] > 0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"corpus": "ravdess", "fold": 7}, "--fold 7 is not one of the 6 folds of ravdess: give 1 to 6"),
        ({"corpus": "ravdess", "fold": 0}, "--fold 0 is not one of the 6"),
        ({"corpus": "demo", "num_folds": 25}, "--num_folds 25 is not between 2 and the number of speakers, 24"),
        ({"corpus": "ravdess", "num_validation_speakers": 20}, "20: there are 20 training speakers, so give 1 to 19"),
        ({"corpus": "ravdess", "num_validation_speakers": 0}, "0: there are 20 training speakers"),
    ],
)
def test_an_impossible_split_says_what_is_possible(arguments, message):
    with pytest.raises(InputError, match=message):
        make_split(RAVDESS, **arguments)


def rows_of_iemocap(missing=()):
    return rows(
        [f"{session}{gender}" for session in "12345" for gender in "FM" if f"{session}{gender}" not in missing],
        session=lambda s: s[0],
        gender=lambda s: {"F": "female", "M": "male"}[s[1]],
    )


def test_on_a_partial_iemocap_a_fold_is_its_session_or_is_refused():
    without_session = rows_of_iemocap(missing=("2F", "2M"))
    for fold in (1, 3, 4, 5):
        parts = speakers_of(make_split(without_session, "iemocap", fold))
        assert (parts["test"], parts["validation"]) == ({f"{fold}F"}, {f"{fold}M"})
    message = "fold 2 of iemocap tests speakers 2F and validates on 2M; no utterance of 2F, 2M is there"
    with pytest.raises(InputError, match=message):
        make_split(without_session, "iemocap", 2)
    without_woman = rows_of_iemocap(missing=("3F",))
    with pytest.raises(InputError, match=r"fold 3 of iemocap .*; no utterance of 3F is there: complete the corpus"):
        make_split(without_woman, "iemocap", 3)
    with pytest.raises(InputError, match="no utterance of 3F is there"):
        make_split(without_woman, "iemocap", 3, protocol="leave_one_session_out")
    assert speakers_of(make_split(without_woman, "iemocap", 4))["test"] == {"4F"}


@pytest.mark.parametrize("corpus", ["ravdess", "cremad", "emodb", "nemo", "savee", "esd"])
def test_on_a_partial_corpus_no_fold_moves_to_other_speakers(corpus):
    """Of the whole corpus and without its second speaker: the same fold, or none."""
    everyone = SPEAKERS[corpus]
    lost = everyone[1]
    whole, part = rows(everyone), rows([speaker for speaker in everyone if speaker != lost])
    published = {"ravdess": 6, "cremad": 5}.get(corpus)
    protocol = "published" if published else "leave_one_speaker_out"
    for fold in range(1, (published or len(everyone)) + 1):
        expected = speakers_of(make_split(whole, corpus, fold, num_validation_speakers=1, protocol=protocol))
        if lost in expected["test"]:
            with pytest.raises(InputError, match=f"fold {fold} of {corpus} .*; no utterance of {lost} is there"):
                make_split(part, corpus, fold, protocol=protocol)
            continue
        found = speakers_of(make_split(part, corpus, fold, num_validation_speakers=1, protocol=protocol))
        assert found["test"] == expected["test"]
        assert expected["validation"] - {lost} <= found["validation"]


def test_folds_drawn_from_a_partial_corpus_are_said_to_be_others(capsys):
    make_split(rows(list(SPEAKERS["emodb"])), "emodb")
    assert "warning" not in capsys.readouterr().err
    make_split(rows([speaker for speaker in SPEAKERS["emodb"] if speaker != "12"]), "emodb")
    assert "drawn from 9 of the 10 speakers of emodb, so they are not those of the whole" in capsys.readouterr().err


def test_two_speakers_are_too_few_and_the_error_says_what_they_are_good_for():
    with pytest.raises(InputError, match=r"b is the only training speaker left.* as --test_corpus"):
        make_split(rows(list("ab")), "tess", num_folds=2, fold=2)


def test_parts_are_sorted_by_duration():
    for part in make_split(RAVDESS, "ravdess", 1).values():
        assert part["duration"][:] == sorted(part["duration"])
