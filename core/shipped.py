"""What comes with the project lies beside its scripts, from whichever folder they are run."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
MINI_MODEL = ROOT / "models" / "ser-align-mini"
SHIPPED_MODELS = {"base": ROOT / "models" / "ser-align-base", "mini": MINI_MODEL}
DEFAULT_MODEL = "base"
MODEL_HELP = f"{', '.join(SHIPPED_MODELS)} (in this repository), a model folder, or a model on the Hub, owner/name"


def find_model(name: str) -> str:
    """The folder of a shipped model, for `base` and `mini`; every other name stays as it is, such as ./mini."""
    return str(SHIPPED_MODELS.get(name, name))


def name_model(model: str) -> str:
    """What a model is called in outputs: a shipped one by the name of its folder, others as they were given."""
    return Path(model).name if Path(model) in SHIPPED_MODELS.values() else model
