"""The list of --corpora: what a user writes in YAML and on the command line, and what is refused."""

import json

import pytest

from core.errors import InputError
from recipe.arguments import parse_arguments
from recipe.entries import list_entries, name_run

YAML = """
corpora:
  - corpus: ravdess
    label_map: {01: no, happy: happy}
    fold: 2
  - {corpus: emodb, use: train, data_dir: FROM_YAML}
  - {corpus: folder, name: ours, only: {style: improvised}}
  - {corpus: folder, name: theirs, use: test}
partial_corpus: true
num_validation_speakers: 3
"""


def parse(*argv):
    return parse_arguments(list(argv), description="")[1]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(YAML)
    return str(path)


def test_an_entry_has_its_own_options_and_the_run_has_the_others(config):
    dirs = '{"ravdess": "R", "ours": "a/list.csv"}'
    args = parse("--config", config, "--data_dirs", dirs, "--data_dir", "ALL")
    ravdess, emodb, ours, theirs = list_entries(args.data)
    assert [entry.name for entry in list_entries(args.data)] == ["ravdess", "emodb", "ours", "theirs"]
    assert [entry.use for entry in list_entries(args.data)] == ["all", "train", "all", "test"]
    assert ravdess.data.label_map == {"01": "no", "happy": "happy"} and ravdess.data.fold == 2 and emodb.data.fold == 1
    assert ours.data.only == {"style": "improvised"} and theirs.data.only == {}
    assert all(entry.data.partial_corpus and entry.data.num_validation_speakers == 3 for entry in (ravdess, theirs))
    assert (ravdess.data.data_dir, emodb.data.data_dir, theirs.data.data_dir) == ("R", "FROM_YAML", "ALL/theirs")
    assert (ours.data.csv, ours.data.data_dir) == ("a/list.csv", None)
    assert name_run(args.data) == "ravdess + emodb + ours + theirs"


def test_the_command_line_may_list_them_and_no_path_is_published():
    given = [{"corpus": "ravdess", "data_dir": "/home/somebody/R"}, {"corpus": "emodb", "split_seed": 3}]
    args = parse("--corpora", json.dumps(given), "--data_dirs", '{"emodb": "/home/somebody/E"}')
    assert args.data.data_dirs == {"ravdess": "/home/somebody/R", "emodb": "/home/somebody/E"}
    assert "somebody" not in json.dumps(args.without_paths())
    assert args.without_paths()["corpora"] == [{"corpus": "ravdess"}, {"corpus": "emodb", "split_seed": 3}]


def test_a_fold_across_corpora_is_no_fold_of_a_corpus():
    entries = [{"corpus": "ravdess"}, {"corpus": "emodb"}, {"corpus": "savee", "use": "train"}]
    argv = ["--corpora", json.dumps(entries), "--protocol", "cross_corpus"]
    uses = [[entry.use for entry in list_entries(parse(*argv, "--fold", str(k)).data)] for k in (1, 2, 3, 4)]
    assert uses == [
        ["test", "train_validation", "train"],
        ["train_validation", "test", "train"],
        ["all", "test", "train"],
        ["test", "all", "train"],
    ]
    assert {entry.data.fold for entry in list_entries(parse(*argv, "--fold", "3").data)} == {1}


@pytest.mark.parametrize(
    ("corpora", "argv", "message"),
    [
        ("ravdess", [], "give a list of entries, as JSON on the command line"),
        ('["ravdess"]', [], "'ravdess' is not an entry with a corpus"),
        ('[{"corpus": "rav"}]', [], "--corpora: corpus: 'rav' is not valid; give one of demo, folder"),
        ('[{"corpus": "tess", "folds": 3}]', [], "corpora: 'folds' is not one of name, use, data_dir, corpus"),
        ('[{"corpus": "tess", "fold": 0}]', [], "--corpora: fold: 0 is not valid; give a whole number of at least 1"),
        ('[{"corpus": "tess", "use": "dev"}]', [], "use='dev' is not valid; give one of all, train, train_validation"),
        ('[{"corpus": "tess", "name": "t"}]', [], "tess has its own name: remove name='t'"),
        ('[{"corpus": "folder", "name": "a/b"}]', [], "name='a/b' must be text without '/'"),
        ('[{"corpus": "tess"}, {"corpus": "tess"}]', [], "has 'tess' twice: make them one entry, since they share"),
        ('[{"corpus": "folder"}, {"corpus": "folder"}]', [], "has 'folder' twice: give each a name"),
        ('[{"corpus": "tess", "protocol": "cross_corpus"}]', [], "protocol=cross_corpus splits all corpora"),
        ('[{"corpus": "tess"}]', [], "--corpora has one entry: list several, or set --corpus tess instead"),
        (
            '[{"corpus": "tess", "use": "test"}, {"corpus": "esd", "use": "test"}]',
            [],
            "--corpora has no corpus to train: give one use: train or all",
        ),
        ('[{"corpus": "tess"}]', ["--data_dirs", '{"emo": "x"}'], "--data_dirs: 'emo' is not one of the corpora tess"),
        ('[{"corpus": "tess"}]', ["--corpus", "esd"], "--corpus esd and --corpora: give one of them"),
        ('[{"corpus": "tess"}]', ["--test_corpus", "esd"], "--test_corpus and --corpora: give an entry of --corpora"),
        ('[{"corpus": "tess"}]', ["--protocol", "leave_one_corpus_out"], "requires two corpora whose use is all"),
        ("[]", ["--protocol", "cross_corpus"], "--protocol cross_corpus requires --corpora"),
    ],
)
def test_a_mistake_in_the_list_is_named_with_what_is_valid(corpora, argv, message):
    with pytest.raises(InputError) as error:
        parse("--corpora", corpora, *argv)
    assert message in str(error.value) and "\n" not in str(error.value)
