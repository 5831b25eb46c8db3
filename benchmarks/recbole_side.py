"""RecBole's half of `lastfm_peer.py`, run by a Python that has RecBole: trains as its users do, hands over vectors.

Reads one JSON object a line: `split` (an npz with (n, 2) rows of users and items: train, valid, test), `model`, `dim`,
`layers`, `lr`, `weight_decay`, `reg_weight`, `batch`, `epochs`, `every`, `patience`, `metric`, `seed`, and `out`.
Writes `out`, an npz of `user` (U, d) and `item` (I, d) in the split's rows, and answers one JSON line. Its own trainer
trains and stops early; nothing of ours is imported.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

MODELS = {"mf": "BPR", "lightgcn": "LightGCN"}
PARTS = ("train", "valid", "test")


def train(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train one model, write its vectors, and say how it went."""
    with np.load(job["split"]) as found:
        split = {name: found[name] for name in PARTS}
    (folder / "log").mkdir(exist_ok=True)
    for name, pairs in split.items():
        lines = ["user_id:token\titem_id:token", *(f"{user}\t{item}" for user, item in pairs)]
        (folder / "log" / f"log.{name}.inter").write_text("\n".join(lines) + "\n")
    model, metric = MODELS[job["model"]], job["metric"].upper()
    of_graph = {"n_layers": job["layers"], "reg_weight": job["reg_weight"]}
    settings: dict[str, Any] = {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id"]},
        "benchmark_filename": list(PARTS),
        "checkpoint_dir": str(folder / "saved"),
        "embedding_size": job["dim"],
        "learning_rate": job["lr"],
        "weight_decay": job["weight_decay"],
        "train_batch_size": job["batch"],
        "eval_batch_size": 1 << 21,  # scores, not users: its default of 4,096 asks for one user at a time
        "epochs": job["epochs"],
        "eval_step": job["every"],
        "stopping_step": job["patience"] - 1,  # it stops when more than these did not improve
        "metrics": [metric.split("@")[0]],
        "topk": [int(metric.split("@")[1])],
        "valid_metric": metric,
        "seed": job["seed"],
        "use_gpu": False,
        "show_progress": False,
        "eval_args": {"group_by": "user", "order": "RO", "mode": "full"},
        **(of_graph if job["model"] == "lightgcn" else {}),
    }
    config = Config(model=model, dataset="log", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    batches, valid, _ = data_preparation(config, dataset)
    net = get_model(model)(config, batches.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, net)
    began = time.perf_counter()
    best, _ = trainer.fit(batches, valid, verbose=False, show_progress=False)
    seconds = time.perf_counter() - began
    # Its own file, just written; its `evaluate` cannot open it with a torch that reads weights alone.
    net.load_state_dict(torch.load(trainer.saved_model_file, weights_only=False)["state_dict"])
    Path(trainer.saved_model_file).unlink()
    net.eval()
    with torch.no_grad():
        tables = net.forward() if job["model"] == "lightgcn" else (net.user_embedding.weight, net.item_embedding.weight)
    arrays = {}
    for name, table in zip(("user", "item"), tables, strict=True):
        rows = len(dataset.field2id_token[f"{name}_id"]) - 1
        arrays[name] = table.detach().numpy()[dataset.token2id(f"{name}_id", np.arange(rows).astype(str))]
    np.savez(job["out"], **arrays)
    return {
        "version": recbole.__version__,
        "valid": float(best),
        "epochs": len(trainer.train_loss_dict),
        "seconds": seconds,
    }


def main() -> None:
    """Answer line by line."""
    answers = os.fdopen(os.dup(1), "w")  # what RecBole prints must not stand among the answers
    os.dup2(2, 1)
    sys.argv = sys.argv[:1]  # its Config reads the command line
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made, contextlib.chdir(made):  # it writes logs where it stands
        for line in sys.stdin:
            print(json.dumps(train(json.loads(line), Path(made))), file=answers, flush=True)


if __name__ == "__main__":
    main()
