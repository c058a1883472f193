"""Two ranks under every strategy give the losses of one process on the same global batches."""

from pathlib import Path

import pytest
import tiny_run
from processes import train
from tiny_run import STRATEGIES, losses

from kebyt5_xm.model.runs.run import Run, backbone_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores, and the run of a single process."""
    folder = tmp_path_factory.mktemp("strategies")
    tiny_run.write_stores(folder)
    path = tiny_run.write_recipe(folder, "single", tiny_run.recipe(folder, "single"))
    assert train(["fit", "-c", path], folder / "single.log") == [0], (folder / "single.log").read_text()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_equal_one(folder: Path, name: str) -> None:
    contents = tiny_run.recipe(folder, name, strategy=STRATEGIES[name], devices=2)
    log = folder / f"{name}.log"
    codes = train(["fit", "-c", tiny_run.write_recipe(folder, name, contents)], log, ranks=2)
    assert codes == [0, 0], log.read_text()[-3000:]
    single, other = Run(folder / "single"), Run(folder / name)
    assert [key for key in losses(single) if key.endswith(" train/loss")] == [
        f"{step} train/loss" for step in range(1, tiny_run.STEPS + 1)
    ]
    assert {key for key in losses(single) if key.endswith(" val/loss")} == {
        f"{step} val/loss" for step in (3, 6, tiny_run.STEPS)
    }
    assert losses(other) == pytest.approx(losses(single), rel=1e-5)
    for key in ("parameters", "trainable_parameters", "steps"):
        assert other.results()[key] == single.results()[key], key
    expected = backbone_tensors(single.last)
    found = backbone_tensors(other.last)
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        assert tensor.numpy() == pytest.approx(expected[key].numpy(), rel=1e-3, abs=1e-4), key


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["kebyt5_xm.optimizers.RMSScaledAdamW", "torch.optim.Adafactor"])
def test_deepspeed_refuses_optimizers_that_need_whole_matrices(folder: Path, optimizer: str) -> None:
    contents = tiny_run.recipe(folder, "refused", strategy=STRATEGIES["zero2"], devices=1)
    contents["model"]["optimizer"] = {"class_path": optimizer, "init_args": {"lr": 0.01}}
    log = folder / "refused.log"
    codes = train(["fit", "-c", tiny_run.write_recipe(folder, "refused", contents)], log)
    assert codes == [2]
    assert f"error: {optimizer.split('.')[-1]} needs whole matrices" in log.read_text()
