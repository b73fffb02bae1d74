"""What comes with the project lies beside its scripts, from whichever folder they are run."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
SHIPPED_MODELS = {name: ROOT / "models" / f"ser-align-{name}" for name in ("base", "mini")}
BASE_MODEL, MINI_MODEL = SHIPPED_MODELS.values()
DEFAULT_MODEL = "mini"


def find_model(name: str) -> str:
    """The folder of a shipped model, for `base` and `mini`; every other name stays as it is, such as ./base."""
    return str(SHIPPED_MODELS.get(name, name))
