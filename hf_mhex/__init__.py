"""What does a user import? The MHEX classes, registered with the Auto classes, conversion, pictures and samples."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)
from transformers.pipelines import PIPELINE_REGISTRY

from hf_mhex.conversion import ConversionReport, from_bert, from_timm
from hf_mhex.data.samples import load_sample
from hf_mhex.explaining.dataset import DatasetExplanation, explain_dataset
from hf_mhex.hub.publishing import publish
from hf_mhex.loading import load
from hf_mhex.modeling.configuration_mhex_bert import MHEXBertConfig
from hf_mhex.modeling.configuration_mhex_resnet import MHEXResNetConfig
from hf_mhex.modeling.mhex import MHEXClassifierOutput, MHEXSaliency
from hf_mhex.modeling.modeling_mhex_bert import MHEXBertForSequenceClassification, MHEXBertModel
from hf_mhex.modeling.modeling_mhex_resnet import MHEXResNetForImageClassification, MHEXResNetModel
from hf_mhex.modeling.pipeline_mhex import ImageSaliencyPipeline, TextSaliencyPipeline
from hf_mhex.processors import image_processor_for

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

for _pipeline, _config, _auto, _kind in (
    (ImageSaliencyPipeline, MHEXResNetConfig, AutoModelForImageClassification, "image"),
    (TextSaliencyPipeline, MHEXBertConfig, AutoModelForSequenceClassification, "text"),
):
    PIPELINE_REGISTRY.register_pipeline(_config.saliency_task, _pipeline, pt_model=_auto, type=_kind)

__all__ = [
    "ConversionReport",
    "DatasetExplanation",
    "ImageSaliencyPipeline",
    "MHEXBertConfig",
    "MHEXBertForSequenceClassification",
    "MHEXBertModel",
    "MHEXClassifierOutput",
    "MHEXResNetConfig",
    "MHEXResNetForImageClassification",
    "MHEXResNetModel",
    "MHEXSaliency",
    "TextSaliencyPipeline",
    "explain_dataset",
    "from_bert",
    "from_timm",
    "image_processor_for",
    "load",
    "load_sample",
    "publish",
]
