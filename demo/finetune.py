"""Fine-tuning after the demo: `make demo-finetune`, or `python -m demo.finetune` in the repository's root.

The model that `make demo` trained on text, images and speech learns three tasks from one YAML: classify names by
kind, read digits, transcribe spoken numbers. It ends with a report, one page of HTML.
"""

import shutil
import time

from demo import console, requirements
from demo.__main__ import THREADS, set_environment
from demo.folder import DATA, EXPORTS, FOLDER, RECIPES
from kebyt5_xm.errors import UserError, exit_on_user_error

RECIPE_NAMES = ("text", "image", "speech", "finetune")
RUN = FOLDER / "finetune"
NAMES = DATA / "names"
REQUIRED = (FOLDER / "joint" / "config.yaml", EXPORTS / "joint" / "adapters")
"""Paths that exist after a complete `make demo`."""


def run(*options: str) -> None:
    """Write the names, fine-tune and write the report; `options` are added to the command line of `train.py`."""
    start = time.perf_counter()
    set_environment(THREADS["joint"])
    requirements.check()
    if missing := [path for path in REQUIRED if not path.exists()]:
        raise UserError(f"found no {missing[0]}, expected the files of `make demo`; run `make demo` first")
    if RUN.exists():  # of an earlier fine-tuning
        shutil.rmtree(RUN)
    print("importing torch, lightning and transformers ...", flush=True)
    from demo.names import write_names
    from demo.text_stage import train

    console.quiet()
    console.heading("fine-tune: three tasks from one YAML, and text")
    manifests = write_names(NAMES)
    print(f"{manifests.train_rows} names to train on, {manifests.heldout_rows} held out")
    train([RECIPES / f"{name}.yaml" for name in RECIPE_NAMES], options)
    print(f"\nin {time.perf_counter() - start:.0f} s; open {RUN / 'report.html'}")


if __name__ == "__main__":
    with exit_on_user_error():
        run()
