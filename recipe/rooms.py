"""Impulse responses of simulated rooms, by pyroomacoustics."""

from functools import cache
from importlib.util import find_spec

import numpy as np

from core.audio import SAMPLING_RATE
from core.errors import InputError

REQUIREMENTS = "requirements-rooms.txt"
# Shoebox rooms from a small office to a meeting room, in metres (ours).
SMALLEST, LARGEST = (3.0, 3.0, 2.4), (8.0, 7.0, 3.5)
FROM_WALL = 0.5  # metres from a wall, of the speaker and the microphone
DISTANCES = (0.3, 3.0)  # metres between speaker and microphone
SCATTERING = 0.1
IMAGE_ORDER = 3  # reflections by image sources; later ones by ray tracing


def check_rooms() -> None:
    """Raise InputError if pyroomacoustics is not installed."""
    if find_spec("pyroomacoustics") is None:
        raise InputError(
            f"rooms need pyroomacoustics, which is not installed: pip install -r {REQUIREMENTS}, or leave room out of "
            "--degradations"
        )


@cache
def simulate_room(seed: tuple[int, ...], shortest: float, longest: float) -> np.ndarray:
    """Simulate a random room; kept in memory, since it takes about half a second.

    Image sources give the first reflections, ray tracing gives the decay after them (Schröder 2011).

    Args:
        seed: of the room, its reverberation time, the speaker and the microphone.
        shortest, longest: range of the reverberation time (RT60) in seconds.

    Returns:
        (samples,), float32 at 16 kHz.
    """
    import pyroomacoustics as pra  # takes seconds

    rng = np.random.default_rng(seed)
    seconds, size = rng.uniform(shortest, longest), rng.uniform(SMALLEST, LARGEST)
    speaker = rng.uniform(FROM_WALL, size - FROM_WALL)
    microphone = _place_microphone(speaker, size, rng)
    absorption, _ = pra.inverse_sabine(seconds, size)
    pra.seed(int(rng.integers(2**32)))
    pra.constants.set("num_threads", 1)  # more would change the last digits
    walls = pra.Material(absorption, SCATTERING)
    room = pra.ShoeBox(size, fs=SAMPLING_RATE, materials=walls, max_order=IMAGE_ORDER, ray_tracing=True)
    room.add_source(speaker)
    room.add_microphone(microphone)
    room.compute_rir()
    return room.rir[0][0].astype(np.float32)


def _place_microphone(speaker: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random place in the room at a random distance from the speaker."""
    while True:
        direction = rng.standard_normal(3)
        place = speaker + rng.uniform(*DISTANCES) * direction / np.linalg.norm(direction)
        if np.all(place > FROM_WALL) and np.all(place < size - FROM_WALL):
            return place
