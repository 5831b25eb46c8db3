"""LensKit's own figures. `pip install lenskit`, then `python make_lenskit.py`."""

from __future__ import annotations

from importlib.metadata import version

import pandas as pd
from lenskit.data import ItemListCollection
from lenskit.metrics import NDCG, Hit, Precision, Recall, RecipRank, RunAnalysis
from shared import case, rows, write

METRICS = {
    "recall": Recall,
    "precision": Precision,
    "hr": Hit,
    "mrr": RecipRank,  # its AveragePrecision divides by zero at a list without test items, so it is left out
    "ndcg": NDCG,
}


def main() -> None:
    given = case()
    columns = ["user_id", "item_id", "rank", "score"]
    lists = ItemListCollection.from_df(pd.DataFrame(rows(given["lists"]), columns=columns), ["user_id"])
    wanted = ItemListCollection.from_df(
        pd.DataFrame([r[:2] for r in rows(given["test"])], columns=columns[:2]), ["user_id"]
    )
    values, defaults = {}, {}
    for k in given["k"]:
        for name, kind in METRICS.items():
            run = RunAnalysis(kind(k))
            summary = run.measure(lists, wanted).list_summary()
            values[f"{name}@{k}"] = summary["mean"].iloc[0]
            defaults[f"{name}@{k}"] = run.measure(lists, wanted).list_metrics(fill_missing=False).mean().iloc[0]
    write("lenskit", version("lenskit"), values, function="RunAnalysis.measure(...).list_summary()", unfilled=defaults)


if __name__ == "__main__":
    main()
