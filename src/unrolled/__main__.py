"""`python -m unrolled`: the command line, for `torchrun -m unrolled …`."""

from unrolled.cli import main

main()
