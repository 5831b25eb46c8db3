"""RePlay's own figures. `pip install replay-rec`, then `python make_replay.py`."""

from __future__ import annotations

from importlib.metadata import version

import pandas as pd
from replay.metrics import MAP, MRR, NDCG, HitRate, OfflineMetrics, Precision, Recall
from shared import case, rows, write

METRICS = {"recall": Recall, "precision": Precision, "hr": HitRate, "mrr": MRR, "map": MAP, "ndcg": NDCG}


def main() -> None:
    given = case()
    columns = ["query_id", "item_id", "rank", "rating"]
    lists = pd.DataFrame(rows(given["lists"]), columns=columns).drop(columns="rank")
    wanted = pd.DataFrame([r[:2] for r in rows(given["test"])], columns=columns[:2])
    found = OfflineMetrics([kind(given["k"]) for kind in METRICS.values()])(lists, wanted)
    names = {kind.__name__: name for name, kind in METRICS.items()}
    values = {f"{names[key.split('@')[0]]}@{key.split('@')[1]}": value for key, value in found.items()}
    write("replay", version("replay-rec"), values, function="OfflineMetrics")


if __name__ == "__main__":
    main()
