"""What does a user import? The MHEX classes, registered with the Auto classes, conversion, pictures and samples."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from hf_mhex.conversion import ConversionReport, from_bert, from_timm
from hf_mhex.loading import load
from hf_mhex.modeling.configuration_mhex_bert import MHEXBertConfig
from hf_mhex.modeling.configuration_mhex_resnet import MHEXResNetConfig
from hf_mhex.modeling.mhex import MHEXClassifierOutput, MHEXSaliency
from hf_mhex.modeling.modeling_mhex_bert import MHEXBertForSequenceClassification, MHEXBertModel
from hf_mhex.modeling.modeling_mhex_resnet import MHEXResNetForImageClassification, MHEXResNetModel
from hf_mhex.processors import image_processor_for
from hf_mhex.samples import load_sample

__version__ = "0.1.0"

for _auto, _config, _model in (
    (AutoModel, MHEXBertConfig, MHEXBertModel),
    (AutoModelForSequenceClassification, MHEXBertConfig, MHEXBertForSequenceClassification),
    (AutoModel, MHEXResNetConfig, MHEXResNetModel),
    (AutoModelForImageClassification, MHEXResNetConfig, MHEXResNetForImageClassification),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    _auto.register(_config, _model, exist_ok=True)
    _config.register_for_auto_class()
    _model.register_for_auto_class(_auto.__name__)

__all__ = [
    "ConversionReport",
    "MHEXBertConfig",
    "MHEXBertForSequenceClassification",
    "MHEXBertModel",
    "MHEXClassifierOutput",
    "MHEXResNetConfig",
    "MHEXResNetForImageClassification",
    "MHEXResNetModel",
    "MHEXSaliency",
    "from_bert",
    "from_timm",
    "image_processor_for",
    "load",
    "load_sample",
]
