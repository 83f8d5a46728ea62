"""``python -m outgrow``: the command, where its script is not in the PATH."""

from outgrow.cli import main

if __name__ == "__main__":
    main(prog_name="outgrow")
