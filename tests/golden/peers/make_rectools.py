"""RecTools' own figures, vectors and lists. `pip install rectools`, then `python make_rectools.py`."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pandas as pd
from implicit.als import AlternatingLeastSquares
from rectools.dataset import Dataset
from rectools.metrics import MAP, MRR, NDCG, HitRate, Precision, Recall, calc_metrics
from rectools.models import ImplicitALSWrapperModel, PopularModel
from shared import HERE, case, rows, write

METRICS = {"recall": Recall, "precision": Precision, "hr": HitRate, "mrr": MRR, "map": MAP, "ndcg": NDCG}


def main() -> None:
    given = case()
    lists = pd.DataFrame(rows(given["lists"]), columns=["user_id", "item_id", "rank", "score"])
    wanted = pd.DataFrame([r[:2] for r in rows(given["test"])], columns=["user_id", "item_id"])
    metrics = {f"{name}@{k}": kind(k=k) for k in given["k"] for name, kind in METRICS.items()}
    metrics |= {f"ndcg@{k} achievable": NDCG(k=k, divide_by_achievable=True) for k in given["k"]}
    write("rectools", version("rectools"), calc_metrics(metrics, lists, wanted), function="calc_metrics")

    rng = np.random.default_rng(6)
    pairs = np.argwhere(rng.random((40, 30)) < 0.2)
    log = pd.DataFrame({"user_id": [f"u{u}" for u in pairs[:, 0]], "item_id": [f"i{i}" for i in pairs[:, 1]]})
    log["weight"], log["datetime"] = 1.0, pd.Timestamp("2024-01-01")
    dataset = Dataset.construct(log)
    als = ImplicitALSWrapperModel(AlternatingLeastSquares(factors=6, iterations=5, random_state=1, use_gpu=False))
    als.fit(dataset)
    users = dataset.user_id_map.external_ids
    vectors = als.get_vectors()
    kept = {
        "users": users.astype(str),
        "items": dataset.item_id_map.external_ids.astype(str),
        "user_vectors": vectors[0],
        "item_vectors": vectors[1],
        "log.user": log["user_id"].to_numpy().astype(str),
        "log.item": log["item_id"].to_numpy().astype(str),
    }
    for name, model in {"als": als, "popular": PopularModel().fit(dataset)}.items():
        found = model.recommend(users, dataset, k=8, filter_viewed=True)
        kept |= {f"{name}.{column}": found[column].to_numpy() for column in ("score", "rank")}
        kept |= {f"{name}.{column}": found[column].to_numpy().astype(str) for column in ("user_id", "item_id")}
    np.savez_compressed(HERE / "rectools_models.npz", **kept)


if __name__ == "__main__":
    main()
