"""Recommenders: what is trained, as teacher or as student. One model a file, registered by name in `MODELS`."""

from recdistill.models import bert4rec, gru4rec, lightgcn, mf, neumf, nextitnet, sasrec
from recdistill.models.base import MODELS, Recommender

__all__ = ["MODELS", "Recommender", "bert4rec", "gru4rec", "lightgcn", "mf", "neumf", "nextitnet", "sasrec"]
