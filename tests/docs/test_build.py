"""The generated documents: blocks in Markdown files, and pages that match the results they show."""

import pytest
from conftest import ROOT
from running import run_script

from core.errors import InputError
from core.shipped import SHIPPED_MODELS
from docs.build.answer import build_answer
from docs.build.blocks import replace_block
from docs.build.corpora import build_corpora_page
from docs.build.diarization import build_diarization_block
from docs.build.encoders import build_encoders_page
from docs.build.int8 import build_int8_block
from docs.build.make import BLOCKS
from docs.build.performance import build_onnx_block, build_performance_block, build_performance_page
from docs.build.reliability import build_reliability_page
from docs.build.robustness import EMPTY_SECTION, build_card_section, build_robustness_page
from experiments.cells import read_experiment
from experiments.tables import write_csv

pytestmark = pytest.mark.slow


def test_a_block_is_replaced_and_the_rest_of_the_file_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- a:begin -->\nold\n<!-- a:end -->\ntext\n<!-- b:begin -->\nb\n<!-- b:end -->\n")
    replace_block(page, "a", ["new", "lines"])
    expected = "# Title\n<!-- a:begin -->\nnew\nlines\n<!-- a:end -->\ntext\n<!-- b:begin -->\nb\n<!-- b:end -->\n"
    assert page.read_text() == expected
    replace_block(page, "a", ["new", "lines"])
    assert page.read_text() == expected


@pytest.mark.parametrize(
    "text",
    [
        None,
        "no block",
        "<!-- a:begin -->\nno end\n",
        "<!-- a:end -->\n<!-- a:begin -->\n",
        "<!-- a:begin -->\n<!-- a:end -->\n<!-- a:begin -->\n<!-- a:end -->\n",
    ],
)
def test_a_missing_or_damaged_block_is_an_error_and_leaves_the_file_alone(tmp_path, text):
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(
        InputError, match=r"page\.md has no block 'a': add the lines <!-- a:begin --> and <!-- a:end -->"
    ):
        replace_block(page, "a", ["new"])
    assert text is None or page.read_text() == text


@pytest.mark.parametrize("model", SHIPPED_MODELS.values(), ids=SHIPPED_MODELS)
def test_the_card_gives_the_scores_of_the_weights_beside_it(model, tmp_path):
    """Otherwise test the model with run_configs/robustness.yaml and run python -m docs.build.make --robustness."""
    block = "\n".join([EMPTY_SECTION[0], *build_card_section(model), EMPTY_SECTION[1]])
    assert block in (model / "README.md").read_text(encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"others")
    with pytest.raises(InputError, match=r"has other weights than those that were tested: run python experiment\.py"):
        build_card_section(tmp_path)


def test_the_papers_question_is_answered_with_the_numbers_of_the_report(tmp_path):
    experiment = read_experiment(str(ROOT / "run_configs" / "ravdess" / "whisper_table3.yaml"), [])
    names = {variant.key: variant.name for variant in experiment.variants}
    shared = {"runs": 6, "speakers": 24}
    differences = {
        "cls_eal": (0.001, -0.009, 0.013, 0.9),
        "cls_fual": (-0.002, -0.012, 0.0101, 1.0),
        "cls_eal_fual": (0.003, -0.0171, 0.0149, 0.8),
        "cls_eal_fual_statistics": (0.022, 0.012, 0.034, 0.04),
        "cls": (0.005, -0.005, 0.017, 0.5),
    }
    rows = [
        {"system": names[key], **dict(zip(("difference_ua", "low", "high", "p_holm"), values)), **shared}
        for key, values in differences.items()
    ]
    write_csv(tmp_path / "steps.csv", rows[:4])
    write_csv(tmp_path / "comparisons.csv", rows[4:])
    assert build_answer(experiment, tmp_path) == []  # without the gradients
    measured = {"EAL / CE pooling": 0.211, "FUAL / CE pooling": 0.00387}
    write_csv(tmp_path / "loss_gradients.csv", [{"trained as": names["cls"], **measured}])
    assert build_answer(experiment, tmp_path) == []  # without the alignment
    aligned = {"cls": (0.042, -0.014, 0.592), "cls_eal_fual": (0.184, 0.123, 0.606)}
    rows = [
        {"system": names[key], **dict(zip(("cls_cosine", "other_cosine", "agreement"), values))}
        for key, values in aligned.items()
    ]
    write_csv(tmp_path / "alignment.csv", rows)
    text = " ".join(build_answer(experiment, tmp_path))
    assert "changes the UA by +0.3 points (95 % interval -1.7 to 1.5, p = 0.80): within the noise." in text
    assert "FUAL alone by -0.2 points (95 % interval -1.2 to 1.0, p = 1.00)" in text
    assert "more than 1.7 points is unlikely in this setting, where stage 2 trains the pooling" in text
    assert "is 0.39 % of that of the cross-entropy" in text and "that of EAL 21 %" in text
    assert "to their own CLS output from 0.04 to 0.18, to those of other utterances from -0.01 to 0.12" in text
    assert "with the predicted class from 59 % to 61 %." in text
    assert text.endswith("changes the UA by +2.2 points (95 % interval 1.2 to 3.4, p = 0.04): a difference. ")


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_in_its_file_and_only_there(name):
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        count = path.read_text(encoding="utf-8").count(f"<!-- {name}:begin -->")
        assert count == (path == BLOCKS[name]), path


@pytest.mark.parametrize(
    ("path", "build"),
    [
        ("docs/CORPORA.md", build_corpora_page),
        ("docs/ENCODERS.md", build_encoders_page),
        ("docs/PERFORMANCE.md", build_performance_page),
        ("docs/RELIABILITY.md", build_reliability_page),
        ("docs/ROBUSTNESS.md", build_robustness_page),
    ],
)
def test_generated_pages_are_up_to_date(path, build):
    """Otherwise run python -m docs.build.make."""
    assert (ROOT / path).read_text(encoding="utf-8") == build()


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("performance", build_performance_block),
        ("onnx", build_onnx_block),
        ("int8", build_int8_block),
        ("diarization", build_diarization_block),
    ],
)
def test_generated_blocks_are_up_to_date(name, build):
    """Otherwise run python -m docs.build.make."""
    block = "\n".join([f"<!-- {name}:begin -->", *build(), f"<!-- {name}:end -->"])
    assert block in BLOCKS[name].read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        *(
            f"{folder}.{path.stem}"
            for folder in ("benchmarks", "studies")
            for path in sorted((ROOT / folder).glob("*.py"))
            if '__name__ == "__main__"' in path.read_text(encoding="utf-8") and "argparse" in path.read_text("utf-8")
        ),
        "docs.build.make",
        "docs.build.first_screen",
        "models.ship",
    ],
)
def test_scripts_run_as_modules_from_the_project_root(module):
    assert f"python -m {module}" in run_script(module, "--help").stdout
