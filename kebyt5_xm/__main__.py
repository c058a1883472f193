"""The command `kebyt5-xm`, and `python -m kebyt5_xm` if scripts are not on the path.

The working folder may come first on Python's path (`python -m` or an empty entry of PYTHONPATH), and a file in it may
have the name of a library. So it is removed before anything else is imported. A folder `kebyt5_xm` in it cannot be
excluded: Python itself runs that one.
"""

from kebyt5_xm import leave_working_folder

leave_working_folder()

from kebyt5_xm.commands.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
