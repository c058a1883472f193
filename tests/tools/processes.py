"""Training in separate processes: a server imports torch, transformers and lightning once and forks for each.

A start of `train.py` costs ten to twenty-five seconds of imports; a fork costs none. The server computes nothing:
OpenMP hangs in forks of a process that has computed.
"""

import multiprocessing
import os
import socket
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["kebyt5_xm.training.cli", "transformers.models.t5.modeling_t5", "torch.utils.tensorboard"]
CONTEXT.set_forkserver_preload(PRELOADED)
TIMEOUT_SECONDS = 500
SAMPLE_LENGTH = 11
"""Ids that a run writes for each example of its sample table, instead of 96: an untrained model never stops by
itself, and decoding took over half of a run's time under ZeRO 3. Ranks check twice: it is above
`decoding.CHECK_EVERY`."""
TOOLS = str(Path(__file__).parent)
"""The folder of modules that test recipes name by class path."""


def train(args: list[str], log: Path, ranks: int = 1) -> list[int]:
    """Run `train.py` with `args` on `ranks` ranks; return their exit codes (negative: the signal)."""
    return wait(start(args, log, ranks))


def start(args: list[str], log: Path, ranks: int = 1) -> list:
    """Start `train.py` without waiting. Output goes to LOG and, for the other ranks, LOG.RANK."""
    port = _free_port()
    started = []
    for rank in range(ranks):
        output = log if rank == 0 else log.with_suffix(f"{log.suffix}.{rank}")
        process = CONTEXT.Process(target=_train, args=(args, str(output), rank, ranks, port))
        process.start()
        started.append(process)
    return started


def wait(started: list) -> list[int]:
    """Wait for the first rank and return all exit codes; kill ranks that then wait for a failed one."""
    for process in started:
        process.join(TIMEOUT_SECONDS if process is started[0] else 20)
    for process in started:
        if process.exitcode is None:
            process.kill()
            process.join()
    return [process.exitcode for process in started]


def _train(args: list[str], output: str, rank: int, ranks: int, port: int) -> None:
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["DS_ACCELERATOR"] = "cpu"
    multiprocessing.set_start_method("fork", force=True)  # for data workers, as in a normal start
    if ranks > 1:  # the variables that torchrun sets
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            GROUP_RANK="0",
            WORLD_SIZE=str(ranks),
            LOCAL_WORLD_SIZE=str(ranks),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            TORCHELASTIC_RUN_ID="test",
        )
    sys.path.insert(0, TOOLS)
    missing = [name for name in PRELOADED if name not in sys.modules]
    assert not missing, f"the server could not import {missing}, which it does not say by itself"
    import torch

    from kebyt5_xm.training import cli

    torch.set_num_threads(1)
    with patch.object(cli, "SampleTable", partial(cli.SampleTable, max_length=SAMPLE_LENGTH)):
        cli.main(args)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
