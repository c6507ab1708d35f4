"""Settings: typed, checked together, read from YAML and from `--set`."""

from isthmus.config.classifier import ClassifierConfig
from isthmus.config.data_free import DataFreeConfig
from isthmus.config.ihda import IhdaConfig
from isthmus.config.presets import PRESETS, presets_of
from isthmus.config.run import CUT_METHODS, RunConfig, read_yaml
from isthmus.config.sections import (
    AugmentConfig,
    CutConfig,
    DataConfig,
    DomainConfig,
    LossConfig,
    ModelConfig,
    Section,
    TrainConfig,
)

__all__ = [
    "CUT_METHODS",
    "PRESETS",
    "AugmentConfig",
    "ClassifierConfig",
    "CutConfig",
    "DataConfig",
    "DataFreeConfig",
    "DomainConfig",
    "IhdaConfig",
    "LossConfig",
    "ModelConfig",
    "RunConfig",
    "Section",
    "TrainConfig",
    "presets_of",
    "read_yaml",
]
