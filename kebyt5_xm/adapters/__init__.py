"""Adapters map an encoder's features to vectors of the width of the byte embedding.

An adapter is chosen by the name of its class; `in_dim` and `d_model` come from the model:

    adapter: {class_path: kebyt5_xm.adapters.MLP, init_args: {hidden: 2048}}
"""

from kebyt5_xm.adapters.adapter import Adapter, left_aligned, scale_ratio
from kebyt5_xm.adapters.convolution import StridedConvolution
from kebyt5_xm.adapters.linear import MLP, FrameStacking, Linear, PixelShuffle
from kebyt5_xm.adapters.perceiver import PerceiverResampler

__all__ = [
    "MLP",
    "Adapter",
    "FrameStacking",
    "Linear",
    "PerceiverResampler",
    "PixelShuffle",
    "StridedConvolution",
    "left_aligned",
    "scale_ratio",
]
