"""`python -m mhex_cli` is `mhex`."""

from mhex_cli import main

main()
