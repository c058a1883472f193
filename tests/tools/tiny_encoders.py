"""Tiny untrained versions of every encoder in `encoders/`."""

from encoders.stems import LogMelEncoder, PatchEncoder
from encoders.stored import StoredFeatures
from encoders.timm import TimmEncoder
from encoders.torchaudio import TorchaudioEncoder
from encoders.transformers import TransformersEncoder

VIT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
CONVS = {"conv_dim": [20] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
SPEECH = {**VIT, "intermediate_size": 36, **CONVS}
LAYER_NORM = {**SPEECH, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
WHISPER = {
    "d_model": 24,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 36,
    "max_source_positions": 50,
    "vocab_size": 60000,
}
TORCHAUDIO = {
    "encoder_embed_dim": 24,
    "encoder_num_layers": 3,
    "encoder_num_heads": 4,
    "encoder_ff_interm_features": 36,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "extractor_conv_layer_config": [(20, 10, 5)] + [(20, 3, 2)] * 4 + [(20, 2, 2)] * 2,
}


def image_model(family, patch=8, **settings):
    sizes = {"image_size": 32, "patch_size": patch}
    if family != "dinov2":
        sizes["intermediate_size"] = 36
    return lambda: TransformersEncoder(family, pretrained=False, config={**VIT, **sizes}, **settings)


def timm_model(name, **settings):
    return lambda: TimmEncoder(name, pretrained=False, **settings)


def speech_model(family, config, **settings):
    return lambda: TransformersEncoder(family, pretrained=False, config=config, **settings)


def bundle(name, **settings):
    return lambda: TorchaudioEncoder(name, pretrained=False, shape=TORCHAUDIO, **settings)


ENCODERS = {
    "patches": lambda: PatchEncoder(image_size=(24, 40), patch_size=8, out_dim=20),
    "patches of any size": lambda: PatchEncoder(48, patch_size=8, out_dim=20, keep_aspect_ratio=True),
    "log-mel": lambda: LogMelEncoder(out_dim=19, stride=4, num_mels=23),
    "log-mel on a fixed scale": lambda: LogMelEncoder(out_dim=19, num_mels=23, normalize="fixed"),
    "log-mel at 8 kHz": lambda: LogMelEncoder(out_dim=19, stride=8, num_mels=23, sample_rate=8000),
    "stored sequences": lambda: StoredFeatures(dim=13),
    "stored grids": lambda: StoredFeatures(dim=13, grid=True),
    "timm ViT": timm_model("test_vit", image_size=64),
    "timm ViT, layer and prefix": timm_model("test_vit", layer=-2, keep_prefix=True, image_size=(48, 80)),
    "timm ViT, final prefix": timm_model("test_vit", keep_prefix=True, image_size=48),
    "timm ViT of any size": timm_model("test_vit", image_size=64, keep_aspect_ratio=True),
    "timm CNN": timm_model("test_efficientnet", image_size=64),
    "timm CNN, layer": timm_model("test_efficientnet", layer=1, image_size=(32, 64)),
    "timm CNN of any size": timm_model("test_efficientnet", image_size=64, keep_aspect_ratio=True),
    "timm ConvNeXt": timm_model("test_convnext", image_size=64),
    "torchaudio wav2vec2 base": bundle("WAV2VEC2_BASE"),
    "torchaudio XLS-R": bundle("WAV2VEC2_XLSR_300M"),
    "torchaudio XLS-R, weighted": bundle("WAV2VEC2_XLSR_300M", layer="weighted"),
    "torchaudio HuBERT large, layer": bundle("HUBERT_LARGE", layer=1),
    "torchaudio WavLM": bundle("WAVLM_LARGE", layer=-2),
    "SigLIP": image_model("siglip"),
    "SigLIP, layer and size": image_model("siglip", layer=-2, image_size=(24, 40)),
    "DINOv2": image_model("dinov2", patch=8),
    "DINOv2, prefix": image_model("dinov2", patch=8, keep_prefix=True),
    "CLIP": image_model("clip", layer=1),
    "Whisper": speech_model("whisper", WHISPER, preprocessing={"chunk_length": 1}),
    "Whisper, layer": speech_model("whisper", WHISPER, preprocessing={"chunk_length": 1}, layer=-2),
    "wav2vec2-bert": speech_model("wav2vec2-bert", {**VIT, "intermediate_size": 36}),
    "HuBERT base": speech_model("hubert", SPEECH),
    "HuBERT large": speech_model("hubert", LAYER_NORM),
    "wav2vec2 large, layer": speech_model("wav2vec2", LAYER_NORM, layer=1),
    "WavLM large": speech_model("wavlm", LAYER_NORM),
}
