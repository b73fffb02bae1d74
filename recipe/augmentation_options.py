"""The options that augment training utterances; `DataArguments` inherits them."""

from dataclasses import dataclass
from typing import Literal, get_args

from options_ser_align import option

# In the order in which a recording meets them.
Degradation = Literal[
    "cut", "room", "silence", "noise", "babble", "gain", "dc", "clip", "band_limit", "telephone", "codec"
]
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)


@dataclass(kw_only=True)
class AugmentationFields:
    """data: augmentation of training utterances"""

    speed_factors: list[float] = option(
        [1.0],
        "speed factors of training utterances; one is drawn whenever an utterance is read",
        "ours",
        minimum=0.1,
        maximum=10,
    )
    pitch_steps: list[float] = option(
        [0.0],
        "pitch shifts of training utterances in semitones; one is drawn whenever an utterance is read",
        "ours",
        minimum=-24,
        maximum=24,
    )
    noise_snrs: list[float] = option(
        [],
        "signal-to-noise ratios in dB of white noise added to training utterances; one is drawn whenever an utterance "
        "is read, none adds no noise",
        "ours",
        minimum=-20,
        maximum=100,
    )
    mix_probability: float = option(
        0.0,
        "probability of mixing a training utterance with another one in its batch, with labels mixed in proportion; "
        "every epoch then computes the frozen part of the encoder anew",
        "ours",
        minimum=0,
        maximum=1,
    )
    mix: Literal["whole", "energy", "length"] = option(
        "whole",
        "how --mix_probability mixes: whole overlays all of the other utterance at an SNR of -5 to 10 dB, with labels "
        "by energy and overlap; energy (energy-adaptive mixup, Wang et al. 2025) overlays a segment of at most half "
        "the utterance at such an SNR, with labels by energy; length overlays such a segment as it is, with labels by "
        "length",
        "ours",
    )
    degrade_probability: float = option(
        0.0,
        "probability of degrading a training utterance as telephones, codecs, rooms, noise and recorders do",
        "ours",
        minimum=0,
        maximum=1,
    )
    degradations: list[str] = option(
        list(DEGRADATIONS),
        "kinds of degradation to draw from, whose ranges are in docs/TRAINING.md; room needs requirements-rooms.txt",
        "ours",
        choices=DEGRADATIONS,
    )
    max_degradations: int = option(
        2, "maximum number of degradations of one utterance; from one to this many are combined", "ours", minimum=1
    )
    degraded_variants: int = option(
        0,
        "number of degraded versions of each utterance, one of which is drawn whenever an utterance is degraded; they "
        "are computed once, so --cache_features caches them; 0 makes a new version each time, which is not cached",
        "ours",
        minimum=0,
    )
