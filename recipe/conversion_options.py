"""The options that convert training utterances to other voices; `DataArguments` inherits them."""

from dataclasses import dataclass
from typing import Literal

from options_ser_align import option


@dataclass(kw_only=True)
class ConversionFields:
    """data: voice conversion of training utterances"""

    convert: Literal["none", "random", "guiding"] = option(
        "none",
        "training utterances of which copies in the voice of another training speaker are added: none; random ones; or "
        "bias-guiding ones, which an early model finds easy, in the voices of bias-contrary ones, which it finds hard "
        "(CO-VADA, Tsai et al. 2025); needs requirements-conversion.txt or --convert_command",
        "ours",
        both_stages=True,
    )
    guiding_share: float = option(
        0.25, "share of the training utterances of each class that are converted", "ours", above=0, maximum=1,
        both_stages=True,
    )  # fmt: skip
    contrary_share: float = option(
        0.25,
        "with --convert guiding, share of the training utterances of each class that are bias-contrary",
        "ours",
        above=0,
        maximum=1,
        both_stages=True,
    )
    convert_copies: int = option(1, "number of copies of each converted utterance", "ours", minimum=1, both_stages=True)
    convert_pairing: Literal["same_class", "any_class"] = option(
        "same_class",
        "class of the utterances whose speakers give the voices: that of the converted one, or any",
        "ours",
        both_stages=True,
    )
    early_epochs: float = option(
        2.0,
        "with --convert guiding, number of epochs of the early model, which is trained first, as stage 1 is",
        "ours",
        minimum=0.01,
        both_stages=True,
    )
    convert_command: str | None = option(
        None,
        "command that converts speech, such as 'python convert.py {source} {reference} {output}', with paths of WAV "
        "files for the three; none converts F0 and spectral envelope by WORLD",
        is_path=True,
        both_stages=True,
    )
