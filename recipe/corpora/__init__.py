"""Corpora: a directory in its official layout -> rows. One file per corpus, independent of training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.config import HF_DATASETS_CACHE

from core.errors import InputError
from recipe.corpora import (
    cremad,
    demo,
    em2ldl,
    emodb,
    esd,
    folder,
    hub,
    iemocap,
    meld,
    msp_podcast,
    nemo,
    ravdess,
    savee,
    tess,
    urdu,
)

# Read from a directory in their published layout.
PUBLISHED = {
    "iemocap": iemocap,
    "cremad": cremad,
    "ravdess": ravdess,
    "emodb": emodb,
    "nemo": nemo,
    "savee": savee,
    "tess": tess,
    "esd": esd,
    "meld": meld,
    "msp_podcast": msp_podcast,
    "urdu": urdu,
    "em2ldl": em2ldl,
}
# The speakers of the whole corpus; absent where their names are not published.
SPEAKERS: dict[str, list[str]] = {
    "iemocap": iemocap.SPEAKERS,
    "cremad": cremad.ACTORS,
    "ravdess": ravdess.ACTORS,
    "emodb": list(emodb.GENDERS),
    "nemo": list(nemo.SPEAKERS),
    "savee": savee.SPEAKERS,
    "tess": tess.SPEAKERS,
    "esd": esd.SPEAKERS,
}
HUB_OPTIONS = (
    "audio_column",
    "label_column",
    "speaker_column",
    "start_column",
    "end_column",
    "text_column",
    "words_column",
    "config",
    "split",
    "streaming",
    "limit",
)
_ALL = {**PUBLISHED, "demo": demo, "folder": folder, "hub": hub}
# For the model card of a model trained on the corpus: its licence (Hub identifier) and attribution.
LICENSES = {name: module.LICENSE for name, module in _ALL.items()}
DESCRIPTIONS = {name: module.DESCRIPTION for name, module in _ALL.items()}


def load_corpus(
    corpus: str,
    data_dir: str | None = None,
    csv: str | None = None,
    partial: bool = False,
    hub_options: dict[str, Any] | None = None,
    allow_outside: bool = False,
    distribution_columns: list[str] | None = None,
    number_columns: Sequence[str] = (),
    needs_labels: bool = True,
) -> Dataset:
    """Read the rows of a corpus; `recipe.corpora.rows` describes the columns.

    Args:
        partial: accept an incomplete copy of a published corpus, with a warning.
        hub_options: for `recipe.corpora.hub.load`; with the corpus hub, `data_dir` is a name on the Hub or a folder.
        allow_outside: for the corpora folder and hub, accept audio outside their directory.
        distribution_columns: for targets that are distributions, the columns with the share of each class in folder and
            hub, as their readers take them; None reads labels.
        number_columns: of folder and hub, columns of numbers to read as well, such as valence.
        needs_labels: whether a CSV file must have the column `label`.

    Raises:
        InputError: the corpus cannot be read.
    """
    if csv is not None and corpus != "folder":
        raise InputError(f"--csv {csv} requires --corpus folder, not {corpus}")
    if corpus == "demo":
        return demo.load(data_dir or "data/demo")
    if csv is not None:
        return folder.load_csv(
            csv, data_dir or Path(csv).parent, allow_outside, distribution_columns, number_columns, needs_labels
        )
    if data_dir is None:
        what = "a name on the Hub or a folder" if corpus == "hub" else "the directory that contains it"
        raise InputError(f"--corpus {corpus} needs --data_dir, {what}")
    if corpus == "folder":
        if distribution_columns is not None:
            raise InputError("--targets distribution needs the votes for each utterance: list them in --csv")
        if number_columns:
            raise InputError(f"--dimensions needs the columns {', '.join(number_columns)}: list them in --csv")
        return folder.load(data_dir, allow_outside)
    if corpus == "hub":
        for option in hub_options or {}:
            if option not in HUB_OPTIONS:
                raise InputError(f"hub_options: {option!r} is not one of {', '.join(HUB_OPTIONS)}")
        if distribution_columns == []:
            raise InputError("--targets distribution needs --distribution_columns, the columns of the dataset to read")
        if distribution_columns and "label_column" in (hub_options or {}):
            raise InputError("hub_options: label_column has no use with --distribution_columns: remove one of them")
        cache_dir = Path(HF_DATASETS_CACHE) / "ser_align" / data_dir.strip("/").replace("/", "--")
        return hub.load(
            data_dir,
            cache_dir,
            **(hub_options or {}),
            allow_outside=allow_outside,
            distribution_columns=distribution_columns,
            number_columns=number_columns,
        )
    return PUBLISHED[corpus].load(data_dir, partial)
