"""The run files that `recdistill init` writes: every setting, explained."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TEMPLATE", "searching"]


def searching() -> str:
    """The run file of a search; `examples/adarec.toml` is a link to it."""
    return Path(__file__).with_name("search.toml").read_text(encoding="utf-8")


TEMPLATE = """\
# A run of recdistill: `recdistill distill run.toml`. What is commented out is the default, or an example of its kind.
# Any key can be set for one run: --set student.dim=32 --set method.rrd.near=20

[data]
path = "ratings.csv"            # CSV, TSV, Parquet, JSONL (plain, gz, zst), MovieLens, RecBole, `user item item` lines
split = "leave-last-out"        # given | leave-last-out | leave-random-out | ratio | time
# seed = 0                      # of a random split
# valid = 0.1                   # shares, for ratio and time
# test = 0.1
# columns = { user = "member", item = "sku" }     # where the names are not recognised; also timestamp, weight, split
# min_rating = 4.0              # keep interactions of at least this weight
# k_core = 5                    # keep users and items with at least so many, repeatedly; 0 keeps all
# dedup = "last"                # one of a user's repeated interactions with an item: last | first | max
# on_bad_rows = "error"         # or "skip": say how many and show the first ten

[teacher]                       # not needed where the method is "plain"
model = "mf"                    # or: lists = "top100.parquet", vectors = "teacher.npz", bundle = "runs/big"
dim = 200
# train = { epochs = 500 }      # keys of [train] that differ for the teacher
# Also recbole = "saved/BPR.pth", implicit = "als.npz" (both with ids = "..."), trajectory = "runs/steps", and several
# teachers as one, a table [[teacher.members]] for each: see docs/teachers.md.

[student]
model = "mf"                    # mf | neumf | lightgcn | sasrec | nextitnet | bert4rec | gru4rec, and their settings
dim = 20
# baseline = true               # also train it without a teacher, to see what distillation is worth

[method]
name = "de-rrd"                 # "rrd" costs far less and asks for lists alone: docs/which-method.md. Settings, such as
# rrd = { near = 40, far = 40 }

[train]
epochs = 1000
batch = 1024
seed = 7
device = "auto"                 # auto | cpu | cuda | cuda:1
# loss = "bpr"                  # bpr | bce | softmax | sampled-softmax | cross-entropy
# negatives = 1                 # sampled items an interaction
# optimiser = "adam"
# lr = 1e-3
# weight_decay = 1e-3
# metrics = ["ndcg@10"]         # on validation data; the first one's best epoch is kept
# protocol = "full"             # or "sampled(499)"
# patience = 20                 # validations without any improvement before it stops
# every = 1                     # epochs between validations

[evaluate]
metrics = ["recall@10", "ndcg@10"]
protocol = "full"               # or "sampled(499)"
# like = "rectools"             # another library's meaning of the metrics
# seed = 0                      # of the sampled items
# latency = true                # measure one user's top-10 on this machine

[output]
dir = "runs/first"
"""
