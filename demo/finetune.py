"""Fine-tuning after the demo: `make demo-finetune`, or `python -m demo.finetune` in the repository's root.

The model that `make demo` has trained on text, images and speech learns three tasks from one YAML: what kind of thing
a name names, which digit a picture shows, which number a voice says. It ends with a report, one page of HTML.
"""

import os
import shutil
import time

from demo import console, requirements
from demo.__main__ import THREADS
from demo.folder import DATA, EXPORTS, FOLDER, RECIPES
from kebyt5_xm.errors import UserError, exit_on_user_error

RECIPE_NAMES = ("text", "image", "speech", "finetune")
RUN = FOLDER / "finetune"
NAMES = DATA / "names"
NEEDED = (FOLDER / "joint" / "config.yaml", EXPORTS / "joint" / "adapters")
"""What `make demo` leaves behind when it has come to its end."""


def run(*options: str) -> None:
    """Make the names, fine-tune and write the report; `options` go to `train.py` behind the recipes."""
    start = time.perf_counter()
    os.environ.update(THREADS | os.environ)
    requirements.check()
    if missing := [path for path in NEEDED if not path.exists()]:
        raise UserError(f"found no {missing[0]}, expected what `make demo` leaves; run `make demo` first")
    _clear()
    print("importing torch, lightning and transformers ...", flush=True)
    from demo.media_stages import train
    from demo.names import write_names

    console.quiet()
    console.heading("fine-tune: three tasks from one YAML, text beside them")
    manifests = write_names(NAMES)
    print(f"{manifests.train_rows} names to train on, {manifests.heldout_rows} held out")
    train([RECIPES / f"{name}.yaml" for name in RECIPE_NAMES], options)
    print(f"\nin {time.perf_counter() - start:.0f} s; open {RUN / 'report.html'}")


def _clear() -> None:
    """Delete the run of an earlier fine-tuning: the demo's folder is its own."""
    if RUN.exists():
        shutil.rmtree(RUN)


if __name__ == "__main__":
    with exit_on_user_error():
        run()
