"""`python -m ganzoo` is the `ganzoo` command."""

from .cli.start import main

main()
