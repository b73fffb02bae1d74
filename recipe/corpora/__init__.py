"""Corpora: a directory in its official layout -> rows. One file each; none of them knows of training."""

from pathlib import Path

from datasets import Dataset

from recipe.corpora import demo, folder, ravdess
from recipe.errors import InputError

# What a model trained on the corpus inherits: licence (Hub identifier) and attribution, for the model card.
LICENSES = {"demo": demo.LICENSE, "ravdess": ravdess.LICENSE, "folder": folder.LICENSE}
DESCRIPTIONS = {"demo": demo.DESCRIPTION, "ravdess": ravdess.DESCRIPTION, "folder": folder.DESCRIPTION}


def load_corpus(corpus: str, data_dir: str | None = None, csv: str | None = None) -> Dataset:
    """Rows of a corpus; the columns are in `recipe.corpora.rows`. Raises InputError if it cannot be read."""
    if csv is not None and corpus != "folder":
        raise InputError(f"--csv {csv} goes with --corpus folder, not {corpus}")
    if corpus == "demo":
        return demo.load(data_dir or "data/demo")
    if csv is not None:
        return folder.load_csv(csv, data_dir or Path(csv).parent)
    if data_dir is None:
        raise InputError(f"--corpus {corpus} needs --data_dir, the directory that holds it")
    return ravdess.load(data_dir) if corpus == "ravdess" else folder.load(data_dir)
