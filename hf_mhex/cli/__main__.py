"""`python -m hf_mhex.cli` is `mhex`."""

from hf_mhex.cli import main

main()
