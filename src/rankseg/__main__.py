"""``python -m rankseg``: the same as the ``rankseg`` command."""

from rankseg.cli import main

if __name__ == "__main__":
    main()
