"""The demo: `make demo`, or `python -m demo` in the repository's root.

Real text of four languages from installed packages is prepared, and a tiny byte-level T5 is pretrained on it by
span denoising, exported, and asked by plain transformers to fill gaps in held-out text. Then an overlay of YAML
adds handwritten digits, and another one spoken numbers; text trains on beside them. Held-out images, and
recordings of voices that were never heard, are read at the end. All of it lies in runs/demo/, which every start
makes afresh. Offline, no GPU.
"""

import argparse
import os
import time
from collections.abc import Sequence

from demo import console, folder, report, requirements
from demo.results import Results
from kebyt5_xm.errors import exit_on_user_error

THREADS = {
    "OMP_NUM_THREADS": "2",  # more gain nothing on matrices as small as these, and the figures would differ
    "OMP_WAIT_POLICY": "PASSIVE",  # else, on cores shared with others, waiting threads take ten times the time
}
"""Environment of the demo's process, unless the user's own says otherwise. OpenMP reads it as torch loads."""


def main() -> None:
    """Run the demo; a `UserError` ends it with one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    with exit_on_user_error():
        run()


def run(options: Sequence[str] = (), num_numbers: int = 100) -> None:
    """Run all stages in this one process, since imports alone take 10 to 25 seconds.

    `options` go to `train.py` behind every stage's recipes; numbers from 0 to `num_numbers` - 1 are spoken.
    """
    start = time.perf_counter()
    os.environ.update(THREADS | os.environ)
    requirements.check()
    folder.start_afresh()
    print("importing torch, lightning and transformers ...", flush=True)
    from demo import media_stages, text_stage

    console.quiet()
    imports = time.perf_counter() - start
    results = Results()

    stages = {
        "text": (lambda: text_stage.run(options), report.restored),
        "image": (lambda: media_stages.run_image(options), report.image_examples),
        "joint": (lambda: media_stages.run_joint(options, num_numbers), report.joint_examples),
    }
    for name, (stage, shown) in stages.items():
        results.figures[name] = stage()
        results.write(time.perf_counter() - start, imports)
        print(shown(results.figures[name]), flush=True)

    console.heading("the demo's figures")
    print(report.ending(results.figures))


if __name__ == "__main__":
    main()
