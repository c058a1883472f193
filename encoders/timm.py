"""Any vision backbone of timm: ViT tokens or CNN feature maps, as a grid of features."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from encoders.meta import freeze_unreached, output_on_meta
from encoders.pretrained import checkpoint_file, loading
from encoders.timm_images import PREPROCESSING, TimmPreprocessor, merge_preprocessing
from kebyt5_xm.encoder import Encoded, Encoder
from kebyt5_xm.errors import UserError, did_you_mean

try:
    import timm
    from timm.data.config import resolve_model_data_config
except ImportError as error:
    raise UserError("found no timm, which TimmEncoder needs; run: pip install 'kebyt5-xm[image]'") from error


class TimmEncoder(Encoder):
    """A backbone by its timm name, for instance `vit_base_patch16_siglip_224` or `hf-hub:timm/...`.

    - `pretrained`: load timm's weights for the name; `checkpoint_path`: load this file instead.
    - `layer`: None for the final features (normed), or the index of a block (ViT) or stage (CNN), negative from
      the end, for its raw output; later layers are dropped.
    - `keep_prefix`: keep class and register tokens before the patches; the features then form no grid.
    - `image_size`: pixels (a square, or height and width) instead of the model's size.
    - `keep_aspect_ratio`: see `TimmPreprocessor`; refused if the backbone accepts only one size.
    - `preprocessing`: overrides of timm's data config: `mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`
      (most models use `center`, which cuts the edges off; `squash` keeps the whole image).
    """

    media = "image"

    def __init__(
        self,
        model_name: str,
        pretrained: bool = True,
        checkpoint_path: str | None = None,
        frozen: bool = False,
        layer: int | None = None,
        keep_prefix: bool = False,
        image_size: int | tuple[int, int] | None = None,
        keep_aspect_ratio: bool = False,
        preprocessing: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = _create(model_name, pretrained, checkpoint_path, keep_aspect_ratio)
        self.keep_prefix = keep_prefix
        self.num_prefix = int(getattr(self.model, "num_prefix_tokens", 0))
        if keep_prefix and not self.num_prefix:
            raise UserError(
                f"found keep_prefix: true for '{model_name}', which has no prefix tokens; remove it"
            )
        data_config = resolve_model_data_config(self.model)
        if image_size is None:
            image_size = tuple(data_config["input_size"][1:])
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if hasattr(self.model, "set_input_size") and not keep_aspect_ratio:
            self.model.set_input_size(img_size=(height, width))
        self.layer = self._keep_layers(layer, model_name)
        if keep_aspect_ratio:
            stride, shape = self._stride(data_config["input_size"], model_name)
        else:
            stride, shape = None, self._probe(height, width, model_name)
        self.out_dim = shape[-1]
        self._preprocessor = TimmPreprocessor(
            image_size=(height, width),
            features=None if stride else (shape[0], shape[1]) if len(shape) == 3 else (shape[0],),
            stride=stride,
            **merge_preprocessing(data_config, preprocessing or {}),
        )
        freeze_unreached(self.model, self._features, self.dummy()[0])
        self.train()
        if frozen:
            self.freeze()

    def preprocessor(self) -> TimmPreprocessor:
        return self._preprocessor

    def dummy(self) -> tuple[Tensor, Tensor]:
        height, width = self._preprocessor.image_size
        if self._preprocessor.stride:
            height = width = self._preprocessor.stride
        return torch.zeros(1, 3, height, width), torch.tensor([3])

    def offline(self, init_args: dict[str, Any]) -> dict[str, Any]:
        config = self._preprocessor
        name = init_args["model_name"]
        if ":" in name:  # a hub or a folder: without it only the architecture is known
            name = self.model.pretrained_cfg["architecture"]
        return {
            **init_args,
            "model_name": name,
            "pretrained": False,
            "checkpoint_path": None,
            "image_size": config.image_size,
            "preprocessing": {key: getattr(config, key) for key in PREPROCESSING},
        }

    def forward(self, prepared: Tensor, lengths: Tensor) -> Encoded:
        features = self._features(prepared)  # [N, rows, columns, W] or [N, F, W]
        grid = (features.shape[1], features.shape[2]) if features.ndim == 4 else None
        return Encoded.full(features.flatten(1, -2), grid)

    def _features(self, images: Tensor) -> Tensor:
        """Return [N, rows, columns, W], or [N, F, W] with prefix tokens or without a grid."""
        model = self.model
        if self.layer is not None:
            options: dict[str, Any] = {"return_prefix_tokens": True} if self.keep_prefix else {}
            (found,) = model.forward_intermediates(
                images,
                indices=[self.layer],
                stop_early=True,
                intermediates_only=True,
                output_fmt="NCHW",
                **options,
            )
            if self.keep_prefix:
                return torch.cat([found[1], found[0].flatten(2).transpose(1, 2)], dim=1)
            return found.permute(0, 2, 3, 1)
        features = model.forward_features(images)
        if features.ndim == 4:
            channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
            return features if channels_last else features.permute(0, 2, 3, 1)
        if self.keep_prefix:
            return features
        features = features[:, self.num_prefix :]
        rows, columns = self._patches(images)
        if rows * columns != features.shape[1]:
            return features
        return features.unflatten(1, (rows, columns))

    def _patches(self, images: Tensor) -> tuple[int, int]:
        patch_embed = getattr(self.model, "patch_embed", None)
        if patch_embed is None or not hasattr(patch_embed, "dynamic_feat_size"):
            return 0, 0
        return patch_embed.dynamic_feat_size((images.shape[2], images.shape[3]))

    def _keep_layers(self, layer: int | None, model_name: str) -> int | None:
        if layer is None:
            return None
        model = self.model
        if not hasattr(model, "forward_intermediates"):
            raise UserError(
                f"found layer: {layer} for '{model_name}', which has only final features; remove layer"
            )
        count = len(model.feature_info)
        if not -count <= layer < count:
            raise UserError(
                f"found layer: {layer} for '{model_name}', expected {-count} to {count - 1}: it has {count} layers"
            )
        model.prune_intermediate_layers([layer % count], prune_norm=True, prune_head=True)
        return layer % count

    def _probe(self, height: int, width: int, model_name: str) -> torch.Size:
        """Return the shape of the features of one image of this size."""
        try:
            return output_on_meta(self.model, self._features, torch.zeros(1, 3, height, width)).shape[1:]
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"found '{model_name}' unable to take images of {height} x {width} pixels ({error}); choose another "
                "image_size, or remove keep_aspect_ratio"
            ) from error

    def _stride(self, model_size: tuple[int, int, int], model_name: str) -> tuple[int, torch.Size]:
        """Return the stride (pixels per feature on each side) and the shape of the features at the model's size.

        Raises `UserError` if the stride is not the same for other image sizes.
        """
        if self.keep_prefix:
            raise UserError("found keep_prefix with keep_aspect_ratio, expected one of them; remove one")
        shape = self._probe(*model_size[1:], model_name)
        stride = model_size[1] // shape[0]
        for rows, columns in ((1, 1), (2, 3), (5, 1)):
            if self._probe(rows * stride, columns * stride, model_name)[:-1] != (rows, columns):
                raise UserError(
                    f"found '{model_name}' to accept only one image size; remove keep_aspect_ratio"
                )
        return stride, shape


def _create(name: str, pretrained: bool, checkpoint_path: str | None, any_size: bool) -> Any:
    if ":" not in name and not timm.is_model(name):
        raise UserError(
            f"found no timm model '{name}', expected a name of timm.list_models()"
            f"{did_you_mean(name.split('.')[0], timm.list_models())}"
        )
    if checkpoint_path:
        checkpoint_file(checkpoint_path)
    create = partial(
        timm.create_model,
        name,
        pretrained=pretrained or checkpoint_path is not None,
        pretrained_cfg_overlay={"file": checkpoint_path} if checkpoint_path else None,
        num_classes=0,  # drops the classifier, also from the checkpoint
    )
    model: Any
    with loading(checkpoint_path or name):
        if any_size:
            try:
                model = create(dynamic_img_size=True)  # ViTs need the argument, CNNs reject it
            except TypeError:
                model = create()
        else:
            model = create()
    model.reset_classifier(0, "")  # no pooling either
    return model
