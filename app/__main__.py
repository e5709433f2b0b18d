"""``python -m app`` is ``autopilot``."""

from app.cli import main

main()
