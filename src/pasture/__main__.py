"""`python -m pasture` is `pasture`."""

from pasture.cli import main

if __name__ == "__main__":
    main()
