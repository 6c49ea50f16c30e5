"""`python -m modelbuild`."""

from modelbuild.cli.main import run

if __name__ == "__main__":
    run()
