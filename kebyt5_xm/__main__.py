"""`python -m kebyt5_xm`: the command `kebyt5-xm`, where scripts are not on the path."""

from kebyt5_xm.cli import main

if __name__ == "__main__":
    main()
