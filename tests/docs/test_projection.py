"""The projection of docs/PERFORMANCE.md, against a case computed by hand."""

import pytest

from docs.build.projection import describe_projection, format_rounded


def test_a_projection_is_that_of_a_case_by_hand():
    training = {
        "gflop_per_second_of_audio": {"ours": 30.0, "reference": 40.0},  # so that a forward pass costs 20
        "padded_audio": {"ours": 1.5},
        "utterances_per_second": {"ours": 2.0},
        "seconds_of_audio": 50.0,  # 5 s each, so 10 s of speech a second
        "clips": 10,
        "threads": 4,
    }
    inference = {"threads": 2, "seconds_of_audio": 100.0, "seconds": {"float32": [9, 10, 30], "bfloat16": [5, 5, 5]}}
    rows = [
        line for line in describe_projection(training, inference).splitlines() if line.startswith(("| sc", "| one"))
    ]
    # 20e9 * 3.6e9 FLOP; 1e6 h * 0.1 * 2 and * 0.05 * 2 cores; 7.2e19 / 1e14 / 3600 = 200 h
    assert rows[0].split(" | ")[1:] == ["7.2e+19", "200,000", "100,000", "200 |"]
    # 30e9 * 1.5 * 409 * 3600 = 6.6e16 FLOP; 409 / 10 * 4 = 163.6 core-hours; 6.6e16 / 1e14 / 3600 = 0.18 h
    assert rows[1].split(" | ")[1:] == ["6.6e+16", "160", "-", "0.18 |"]


@pytest.mark.parametrize(("value", "text"), [(207954, "210,000"), (0.1721, "0.17"), (6645, "6,600"), (99.6, "100")])
def test_rounding_keeps_two_digits(value, text):
    assert format_rounded(value) == text
