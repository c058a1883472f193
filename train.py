"""Train and validate: `python train.py fit -c RECIPE [-c OVERLAY ...] [--KEY VALUE ...]`.

python train.py fit -c configs/pretrain/small.yaml                                  one process
torchrun --nproc-per-node 4 train.py fit -c configs/pretrain/small.yaml -c configs/strategy/ddp.yaml
python train.py fit -c configs/pretrain/small.yaml --ckpt_path last                 continue the run
python train.py validate -c runs/NAME/config.yaml --ckpt_path best                  measure again
"""

import sys

from kebyt5_xm.commands.version import version
from kebyt5_xm.errors import exit_on_user_error
from kebyt5_xm.training import environment
from kebyt5_xm.training.recipe_check import check_arguments

if __name__ == "__main__":
    with exit_on_user_error():
        if sys.argv[1:] == ["--version"]:
            print(version())
            raise SystemExit(0)
        environment.set_defaults()
        check_arguments(sys.argv[1:])  # errors that need no slow import come first
        from kebyt5_xm.training.cli import main  # takes ten seconds; Ctrl-C works meanwhile

        main(sys.argv[1:])
