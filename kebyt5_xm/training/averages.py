"""A checkpoint of a run with `ema`: averages are its weights, and the raw weights lie beside them."""

from typing import Any

from kebyt5_xm.errors import UserError

KEY = "ema"
"""The key of a checkpoint that holds the raw weights, while its `state_dict` holds the averages:

updates    number of updates of the averages
raw        name -> raw weight, of every weight that trains, under all names of tied ones
precise    name -> average in fp32, of weights of lower precision, in which `state_dict` rounds it
averages   the same of all weights; never stored, but made by `take_raw_weights`
"""


def take_raw_weights(checkpoint: dict[str, Any]) -> None:
    """Make the raw weights those of a checkpoint to continue from, with or without `ema`; keep its averages."""
    if KEY not in checkpoint:
        return
    if "state_dict" not in checkpoint:  # FSDP2 has loaded it by itself
        raise UserError(
            "the checkpoint was written with `ema`, and this trainer.strategy would go on from the averages; use one "
            "device or DDP, or start a new run from them with model.backbone.weights"
        )
    state, stored = checkpoint["state_dict"], checkpoint[KEY]
    averages = {**{name: state[name] for name in stored["raw"]}, **stored["precise"]}
    checkpoint[KEY] = {**stored, "averages": averages}
    checkpoint["state_dict"] = {**state, **stored["raw"]}
