"""Recommenders: what is trained, as teacher or as student. One model a file, registered by name in `MODELS`."""

from recdistill.models import mf
from recdistill.models.base import MODELS, Recommender

__all__ = ["MODELS", "Recommender", "mf"]
