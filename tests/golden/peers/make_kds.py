"""KDs' own figures: `python make_kds.py FOLDER`, a checkout of github.com/woriazzc/KDs.

Needs torch, scikit-learn and what its `utils` import (pyro-ppl).

`Evaluator.evaluate_rec` measures the case, u08 among them; users without targets count as the rows they are.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from shared import case, write


def main(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    import torch
    from modules.evaluation import Evaluator

    given = case()
    users, items, top = range(len(given["users"])), len(given["items"]), given["k"]
    scores = torch.tensor(given["scores"], dtype=torch.float32)
    args = SimpleNamespace(
        early_stop_patience=1, early_stop_metric="NDCG", task="rec", K_list=top, early_stop_K=top[-1]
    )
    train = dict(enumerate(given["train"]))
    targets = {u: given["test"][u] for u in users if given["test"][u]}
    loader = SimpleNamespace(
        batch_size=4, dataset=SimpleNamespace(train_dict=train, num_users=len(users), num_items=items)
    )
    model = SimpleNamespace(eval=lambda: None, get_ratings=lambda batch: scores[batch].clone())
    part = SimpleNamespace(inter_dict=targets)
    found = Evaluator(args).evaluate_rec(model, loader, part, part)["test"]
    values = {f"{metric.lower()}@{k}": float(value) for metric in found for k, value in found[metric].items()}
    masked = scores.numpy().copy()
    for u, seen in train.items():
        masked[u, seen] = -1e10
    lists = [torch.topk(torch.from_numpy(masked[u]), max(top)).indices.tolist() for u in users]
    commit = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert np.isfinite(list(values.values())).all()
    write("kds", commit, values, lists=lists, function="Evaluator.evaluate_rec")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
