"""The words of a record: its text, and which words a part of its timeline has."""

from typing import Any


def join_words(words: str | list[dict[str, Any]]) -> str:
    """A text, or the text of words with times."""
    return words if isinstance(words, str) else " ".join(word["word"] for word in words)


def place_words(record: dict[str, Any]) -> list[str]:
    """The words of each segment of the timeline: a word is in the one that its middle is in or nearest to."""
    placed: list[list[str]] = [[] for _ in record["timeline"]]
    for word in record.get("words", ()) if placed else ():
        middle = (word["start"] + word["end"]) / 2
        away = [max(part["start"] - middle, middle - part["end"]) for part in record["timeline"]]
        placed[away.index(min(away))].append(word["word"])
    return list(map(" ".join, placed))


def describe_alone(record: dict[str, Any]) -> str:
    """The answers of the voice alone and of the words alone: `voice alone: sad 0.71; words alone: happy 0.83`."""
    best = {name: max(scores.items(), key=lambda pair: pair[1]) for name, scores in record["alone"].items()}
    return "; ".join(f"{name} alone: {label} {score:.2f}" for name, (label, score) in best.items())
