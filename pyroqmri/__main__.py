"""``python -m pyroqmri``."""

from pyroqmri.cli import main

if __name__ == "__main__":
    main()
