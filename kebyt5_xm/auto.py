"""Makes transformers' Auto classes know `CrossModalT5`, by importing this module.

    import kebyt5_xm.auto
    from transformers import AutoModelForSeq2SeqLM, AutoProcessor

`AutoConfig`, `AutoModel`, `AutoModelForSeq2SeqLM`, `AutoModelForMultimodalLM` and `AutoProcessor` then load an export
or a hub id of one, and `pipeline("any-to-any", model=...)` answers with it (see `kebyt5_xm.model.pipeline_calls`).
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
)

from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.processor import CrossModalProcessor
from kebyt5_xm.weight_files import CROSS_MODAL

__all__ = ["CrossModalProcessor", "CrossModalT5", "CrossModalT5Config"]

AutoConfig.register(CROSS_MODAL, CrossModalT5Config, exist_ok=True)
for auto_class in (AutoModel, AutoModelForSeq2SeqLM, AutoModelForMultimodalLM):
    auto_class.register(CrossModalT5Config, CrossModalT5, exist_ok=True)
AutoProcessor.register(CrossModalT5Config, CrossModalProcessor, exist_ok=True)
