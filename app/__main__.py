"""``python -m app`` is the ``ctxplan`` command."""

from app.cli import main

main()
