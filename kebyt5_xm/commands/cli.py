"""The `kebyt5-xm` command: `kebyt5-xm COMMAND ...`; see `kebyt5-xm COMMAND --help`."""

import argparse
import importlib
import os
import sys

from kebyt5_xm import leave_working_folder
from kebyt5_xm.commands.version import version
from kebyt5_xm.data.media.names import expand_arguments
from kebyt5_xm.errors import UserError, did_you_mean, exit_on_user_error
from kebyt5_xm.training import environment
from kebyt5_xm.training.recipe_check import check

# command -> (module, one line of help). A module is imported only when its command runs: torch and
# transformers take ten seconds to import, and `prepare` needs neither.
COMMANDS = {
    "prepare": ("kebyt5_xm.commands.prepare", "turn text files into a byte store"),
    "inspect": ("kebyt5_xm.commands.inspect", "show the content of byte stores"),
    "cache": (
        "kebyt5_xm.commands.cache",
        "compute the features of frozen encoders once, for training to read",
    ),
    "lint": (
        "kebyt5_xm.commands.lint",
        "read whole manifests and stores and list their errors",
    ),
    "preview": (
        "kebyt5_xm.commands.preview",
        "show the first examples as the model gets them, as a page",
    ),
    "doctor": ("kebyt5_xm.commands.doctor", "try a configuration on this CPU before it trains"),
    "tune": ("kebyt5_xm.commands.tune", "find the learning rate of a recipe by short runs"),
    "evaluate": (
        "kebyt5_xm.commands.evaluate",
        "measure a run, an export or another model on any held-out data",
    ),
    "report": ("kebyt5_xm.commands.report", "evaluate a run and write its report, as a page"),
    "compare": ("kebyt5_xm.commands.compare", "put the reports of runs side by side"),
    "export": ("kebyt5_xm.commands.export.export", "turn a run into a folder that transformers loads"),
    "compose": (
        "kebyt5_xm.commands.compose",
        "join adapters of separate runs on one backbone into one model",
    ),
    "generate": (
        "kebyt5_xm.commands.generate",
        "let a run or an export answer a prompt, with images and recordings",
    ),
    "teach": ("kebyt5_xm.commands.teach", "let a model answer a manifest, as training data"),
    "select": ("kebyt5_xm.commands.select", "keep the answers that are probably right"),
    "transcribe": (
        "kebyt5_xm.commands.transcribe",
        "write down recordings of any length, with times, as text or subtitles",
    ),
    "serve": ("kebyt5_xm.commands.serve", "let a run or an export answer over HTTP"),
}


def main(args: list[str] | None = None) -> None:
    """Run one command. A `UserError` is printed as one line, with exit code 2."""
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(_usage())
        raise SystemExit(0 if args else 2)
    if args[0] == "--version":
        print(version())
        return
    environment.set_defaults()
    leave_working_folder()  # an empty part of PYTHONPATH means the working folder
    try:
        with exit_on_user_error():
            run(args[0], args[1:])
    except BrokenPipeError:  # `kebyt5-xm inspect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def run(command: str, args: list[str]) -> None:
    """Run `command` with `args`; raises `UserError` for an unknown one."""
    if command not in COMMANDS:
        raise UserError(
            f"no command '{command}'{did_you_mean(command, COMMANDS)}; there are {', '.join(COMMANDS)}"
        )
    name, help_line = COMMANDS[command]
    module = importlib.import_module(name)
    parser = argparse.ArgumentParser(prog=f"kebyt5-xm {command}", description=module.__doc__ or help_line)
    module.add_arguments(parser)
    parsed = parser.parse_args(expand_arguments(args))
    if recipe := getattr(parsed, "config", None):
        check(recipe)  # before the imports of the command
    module.run(parsed)


def _usage() -> str:
    lines = ["usage: kebyt5-xm COMMAND ...", ""]
    lines += [f"  {name:<11}{help_line}" for name, (_, help_line) in COMMANDS.items()]
    lines += ["", "kebyt5-xm --version prints the version."]
    return "\n".join([*lines, "", "Training is `python train.py fit -c RECIPE`."])
