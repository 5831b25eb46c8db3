"""Microsoft recommenders' own figures. `pip install recommenders`, then `python make_recommenders.py`."""

from __future__ import annotations

from importlib.metadata import version

import pandas as pd
from recommenders.evaluation.python_evaluation import map, map_at_k, ndcg_at_k, precision_at_k, recall_at_k
from shared import case, rows, write

METRICS = {"recall": recall_at_k, "precision": precision_at_k, "map": map_at_k, "ndcg": ndcg_at_k, "map over n": map}


def main() -> None:
    given = case()
    columns = ["userID", "itemID", "rank", "prediction"]
    lists = pd.DataFrame(rows(given["lists"]), columns=columns).drop(columns="rank")
    wanted = pd.DataFrame([(*r[:2], 1.0) for r in rows(given["test"])], columns=["userID", "itemID", "rating"])
    values = {f"{name}@{k}": kind(wanted, lists, k=k) for k in given["k"] for name, kind in METRICS.items()}
    write("recommenders", version("recommenders"), values, function="python_evaluation")


if __name__ == "__main__":
    main()
