"""`python -m graphcl` is `graphcl`; torchrun starts it so."""

from graphcl.cli import main

main()
