"""The licence that predict.py names: as the card of the model states it, and nothing else."""

import pytest

from core.model_files import read_licence
from core.shipped import MINI_MODEL
from inference.terminal import print_model


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# Model\n", "apache-2.0"),
        ("---\ntags: [speech]\n---\n# Model\n", None),
        ("# no metadata\n", None),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None),
        ("---\nlicense: 7\n---\n", None),
        ('---\nlicense: "mit\\e[31m"\n---\n', None),  # control characters
        ("---\nlicense: {\n---\n", None),
        ("---\n- license\n---\n", None),
        (None, None),
    ],
)
def test_it_is_that_of_the_card(card, licence, tmp_path, capsys):
    if card is not None:
        (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert read_licence(str(tmp_path)) == licence
    print_model(str(tmp_path), None)
    expected = f"licence {licence}" if licence else "its card states no licence"
    assert capsys.readouterr().err == f"model: {tmp_path}, {expected}\n"


def test_a_card_in_another_encoding_states_none(tmp_path):
    (tmp_path / "README.md").write_bytes("---\nlicense: müt\n---\n".encode("latin-1"))
    assert read_licence(str(tmp_path)) is None


def test_a_limited_licence_is_said_to_be_one(capsys):
    print_model(str(MINI_MODEL), None)
    said = capsys.readouterr().err
    assert said == "model: ser-align-mini, licence cc-by-nc-sa-4.0 (not for commercial use)\n"


def test_a_name_on_the_hub_that_cannot_be_reached_states_none():
    assert read_licence("nobody/nothing") is None  # tests are offline
