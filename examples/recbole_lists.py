"""Write the lists of any RecBole model as a teacher's file, in RecBole's own environment.

    python recbole_lists.py saved/NeuMF-Nov-21-2026_15-27-53.pth lists.parquet

For models whose checkpoints `rd.teacher(recbole=...)` does not read, because their scores are no inner products. This
loads the checkpoint as RecBole does, which runs what is in it: do so only with a file that you made or trust. Needs
RecBole 1.2 and pandas with pyarrow, or a name that ends in .csv; it does not need recdistill.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

K = 200
AT_ONCE = 256


def main() -> None:
    """Read the command line and write the lists."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("checkpoint", type=Path)
    asked.add_argument("lists", type=Path, help="lists.parquet or lists.csv")
    asked.add_argument("--k", type=int, default=K, help="items a user")
    given = asked.parse_args()

    import numpy as np
    import pandas as pd
    import torch

    torch.load = functools.partial(torch.load, weights_only=False)  # RecBole 1.2 expects the default of torch < 2.6
    from recbole.quick_start import load_data_and_model
    from recbole.utils.case_study import full_sort_topk

    _, model, dataset, _, _, test = load_data_and_model(str(given.checkpoint))
    users = np.arange(1, dataset.user_num)
    known = np.isin(users, test.dataset.inter_feat[dataset.uid_field].numpy())
    k = min(given.k, dataset.item_num - 1)
    frames = []
    for start in range(0, int(known.sum()), AT_ONCE):
        rows = users[known][start : start + AT_ONCE]
        scores, best = full_sort_topk(rows, model, test, k=k)
        frame = pd.DataFrame(
            {
                "user_id": np.repeat(dataset.id2token(dataset.uid_field, rows), k),
                "item_id": dataset.id2token(dataset.iid_field, best.cpu().numpy()).reshape(-1),
                "score": scores.cpu().numpy().reshape(-1),
            }
        )
        frames.append(frame[np.isfinite(frame["score"])])
    whole = pd.concat(frames)
    if given.lists.suffix == ".csv":
        whole.to_csv(given.lists, index=False)
    else:
        whole.to_parquet(given.lists, index=False)
    print(f"Wrote {len(whole):,} rows of {int(known.sum()):,} users to {given.lists}")


if __name__ == "__main__":
    main()
