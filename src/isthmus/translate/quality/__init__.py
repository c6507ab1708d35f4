"""The quality gate: is a translation fit to train on? Three figures, each with a verdict and its threshold."""

from isthmus.evaluate.probe import Probe, Share, domain_probe
from isthmus.translate.quality.content import Content, content_kept
from isthmus.translate.quality.faults import Faults
from isthmus.translate.quality.measure import Quality, Shift, measure_quality
from isthmus.translate.quality.shift import Frechet, frechet_distance, frechet_figure

__all__ = [
    "Content",
    "Faults",
    "Frechet",
    "Probe",
    "Quality",
    "Share",
    "Shift",
    "content_kept",
    "domain_probe",
    "frechet_distance",
    "frechet_figure",
    "measure_quality",
]
