"""The demo page: a recording in, its emotions over time out. Needs core, inference and the Hub files."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
SHIPPED_MODEL = ROOT / "models" / "ser-align-mini"
