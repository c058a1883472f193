"""The command `kebyt5-xm`, and `python -m kebyt5_xm` where scripts are not on the path.

Python may have the working folder in front of its path, where a file may have any library's name: `python -m` puts
it there, and so does an empty part of PYTHONPATH. So it goes before anything else is imported. Only a folder
`kebyt5_xm` there is beyond us: Python itself runs that one.
"""

from kebyt5_xm import leave_working_folder

leave_working_folder()

from kebyt5_xm.commands.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
