"""Recommenders: what is trained, as teacher or as student. One model a file, registered by name in `MODELS`."""

from recdistill.models import lightgcn, mf, neumf
from recdistill.models.base import MODELS, Recommender

__all__ = ["MODELS", "Recommender", "lightgcn", "mf", "neumf"]
