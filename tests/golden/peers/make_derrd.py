"""DE-RRD's own figures: `python make_derrd.py FOLDER`, a checkout of github.com/SeongKu-Kang/DE-RRD_CIKM20.

`LOO_latent_factor_evaluate` ranks one target among 40 candidates, for users whose scores are drawn here; the last two
users score their target as many candidates do, so what it says of them is what its sort leaves.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from shared import write

USERS, ITEMS, CANDIDATES = 25, 60, 40


def main(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    import torch
    from Utils.evaluation import LOO_latent_factor_evaluate

    rng = np.random.default_rng(9)
    scores = np.stack([rng.permutation(ITEMS) for _ in range(USERS)]).astype(np.float32)
    drawn = np.stack([rng.choice(ITEMS, CANDIDATES + 2, replace=False) for _ in range(USERS)])
    for u in range(USERS - 2, USERS):
        scores[u, drawn[u, [0, *range(2, 2 + 8)]]] = 30  # the target and eight candidates
    test, valid, others = drawn[:, 0], drawn[:, 1], drawn[:, 2:]

    def said(users: list[int]) -> dict[str, float]:
        data = SimpleNamespace(
            user_list=torch.tensor(users),
            test_item={u: [int(test[u])] for u in users},
            valid_item={u: [int(valid[u])] for u in users},
            candidates={u: torch.tensor(others[u]) for u in users},
        )
        model = SimpleNamespace(
            sim_type="inner product", get_embedding=lambda: (torch.from_numpy(scores), torch.eye(ITEMS))
        )
        found = LOO_latent_factor_evaluate(model, data)
        names = {"H": "hr", "N": "ndcg", "M": "mrr"}
        return {
            f"{part} {names[key[0]]}@{key[1:]}": float(value)
            for part in ("test", "valid")
            for key, value in found[part].items()
        }

    commit = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    write(
        "de-rrd",
        commit,
        said(list(range(USERS - 2))),
        scores=scores.astype(int).tolist(),
        test=test.tolist(),
        valid=valid.tolist(),
        candidates=others.tolist(),
        tied=said([USERS - 2, USERS - 1]),
        function="LOO_latent_factor_evaluate",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
