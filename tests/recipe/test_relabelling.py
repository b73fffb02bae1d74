"""Selection: labels merged, renamed and dropped, and rows kept by a column."""

import pytest
from making import labelled_rows as rows
from making import words

from core.errors import InputError
from recipe.relabelling import keep_only, map_labels, select_utterances


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
