"""The demo: `make demo`, or `python -m demo` in the repository's root.

It prepares real text in four languages from installed packages, pretrains a tiny byte-level T5 on it by span
denoising, exports it, and fills gaps in held-out text. Then one overlay of YAML adds
handwritten digits, and another one spoken numbers, while text stays in training. At the end the model answers
held-out images, and recordings of voices that training never heard. Everything is in runs/demo/, which every start
empties. Offline, no GPU.
"""

import argparse
import os
import time
from collections.abc import Sequence

from demo import console, folder, report, requirements
from kebyt5_xm.errors import exit_on_user_error
from kebyt5_xm.training import environment

THREADS = {"text": 2, "image": 1, "joint": 1}
"""Of each stage: more do not help with such small matrices, and would change the figures. The stages with media have
a data worker for the second core."""


def main() -> None:
    """Run the demo; a `UserError` ends it with one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    with exit_on_user_error():
        run()


def set_environment(threads: int) -> None:
    """Set what the user has not set; before torch is imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    environment.set_defaults()


def run(options: Sequence[str] = (), num_numbers: int = 100) -> None:
    """Run all stages in one process, since imports take 10 to 25 seconds.

    `options` are added to every command line of `train.py`; the spoken numbers are 0 to `num_numbers` - 1.
    """
    start = time.perf_counter()
    set_environment(max(THREADS.values()))
    requirements.check()
    folder.make_empty()
    print("importing torch, lightning and transformers ...", flush=True)
    import torch

    from demo import media_stages, text_stage

    console.quiet()
    imports = time.perf_counter() - start
    results = report.Results()

    stages = {
        "text": (lambda: text_stage.run(options), report.restored_table),
        "image": (lambda: media_stages.run_image(options), report.image_examples),
        "joint": (lambda: media_stages.run_joint(options, num_numbers), report.joint_examples),
    }
    for name, (run_stage, make_table) in stages.items():
        torch.set_num_threads(THREADS[name])
        results.figures[name] = run_stage()
        results.write(time.perf_counter() - start, imports)
        print(make_table(results.figures[name]), flush=True)

    console.heading("the demo's figures")
    print(report.final_summary(results.figures))


if __name__ == "__main__":
    main()
