"""Finding files: through links, without loops, and nothing left out in silence."""

import pytest
from conftest import write_wav
from running import obey_permissions

from core.errors import InputError
from core.files import find_files
from inference.files import find_recordings


def test_a_linked_folder_is_read(tmp_path):
    elsewhere = write_wav(tmp_path / "disk" / "Actor_01" / "a.wav").parent
    write_wav(tmp_path / "corpus" / "Actor_02" / "b.wav")
    (tmp_path / "corpus" / "Actor_01").symlink_to(elsewhere)
    found = [tmp_path / "corpus" / "Actor_01" / "a.wav", tmp_path / "corpus" / "Actor_02" / "b.wav"]
    assert find_files(tmp_path / "corpus", (".wav",)) == found
    assert find_recordings([str(tmp_path / "corpus")]) == list(map(str, found))


def test_a_link_back_up_ends_the_way_there(tmp_path, capsys):
    write_wav(tmp_path / "a" / "deep" / "x.wav")
    (tmp_path / "a" / "deep" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "deep" / "top").symlink_to(tmp_path)
    expected = [tmp_path / "a" / "deep" / "x.wav"]
    assert find_files(tmp_path, (".wav",)) == expected
    assert find_recordings([str(tmp_path / "**" / "*.wav")]) == list(map(str, expected))
    assert capsys.readouterr().err == ""


def test_a_folder_with_two_names_is_read_once_and_named(tmp_path, capsys):
    write_wav(tmp_path / "angry" / "x.wav")
    (tmp_path / "rage").symlink_to(tmp_path / "angry")
    assert find_files(tmp_path, (".wav",)) == [tmp_path / "angry" / "x.wav"]
    assert f"{tmp_path}/rage is the folder {tmp_path}/angry under another name" in capsys.readouterr().err


def test_a_link_to_nothing_is_named(tmp_path, capsys):
    """By the search if it may have been a folder; a lost recording is left to whoever reads it."""
    write_wav(tmp_path / "x.wav")
    (tmp_path / "lost.wav").symlink_to(tmp_path / "unplugged")
    (tmp_path / "Actor_01").symlink_to(tmp_path / "unplugged")
    assert len(find_files(tmp_path, (".wav",))) == 2
    assert f"{tmp_path}/Actor_01 is a broken link and is ignored" in capsys.readouterr().err


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path):
    write_wav(tmp_path / "open" / "x.wav")
    write_wav(tmp_path / "closed" / "x.wav").parent.chmod(0)
    try:
        with pytest.raises(InputError, match="closed cannot be read"):
            obey_permissions(lambda: find_files(tmp_path, (".wav",)))
    finally:
        (tmp_path / "closed").chmod(0o755)
