"""The command as a module: ``python -m lungmix``."""

from lungmix.cli import main

# A worker that is spawned imports the main module again and must not start a second run.
if __name__ == "__main__":
    main()
