"""Methods as data: settings, terms, builder and paper, one method a file. Importing this package registers them all."""

from recdistill.methods import adarec, bd, cd, dcd, de, de_rrd, fitnet, ftd, hetcomp, htd, ir_rrd, plain, rd, rrd, unkd
from recdistill.methods.base import METHODS, MethodEntry, Setting

__all__ = [
    "METHODS",
    "MethodEntry",
    "Setting",
    "adarec",
    "bd",
    "cd",
    "dcd",
    "de",
    "de_rrd",
    "fitnet",
    "ftd",
    "hetcomp",
    "htd",
    "ir_rrd",
    "plain",
    "rd",
    "rrd",
    "unkd",
]
