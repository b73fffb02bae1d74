"""What comes with the project lies beside its scripts, from whichever folder they are run."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
SHIPPED_MODEL = ROOT / "models" / "ser-align-mini"
