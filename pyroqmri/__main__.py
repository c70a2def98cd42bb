"""``python -m pyroqmri``."""

from pyroqmri.cli import main

main()
