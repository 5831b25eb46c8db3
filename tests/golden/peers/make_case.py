"""The one small case that every peer measures: `python make_case.py` writes case.json; numpy alone.

Twelve users, fourteen items. Ties inside a list (u03) and at the cut-off (u04); users without targets (u06, u07); a
user with targets and neither training items nor a list (u08); more targets than K (u09); short lists
(u02, u05).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

USERS, ITEMS, K, LENGTH = 12, 14, (3, 5), 6
SHORT = {2: 2, 8: 0}


def main() -> None:
    rng = np.random.default_rng(20)
    scores = np.stack([rng.permutation(ITEMS) for _ in range(USERS)]) + 1  # (U, I) whole numbers: exact everywhere
    train, test = [], []
    for u in range(USERS):
        n_train, n_test = {5: (11, 2), 8: (0, 3), 6: (2, 0), 7: (3, 0), 9: (2, 8)}.get(u, (int(rng.integers(1, 4)), 3))
        order = rng.permutation(ITEMS)
        train.append(sorted(order[:n_train].tolist()))
        test.append(sorted(order[n_train : n_train + n_test].tolist()))
    ranked = [[int(i) for i in np.argsort(-scores[u], kind="stable") if i not in train[u]] for u in range(USERS)]
    scores[3, ranked[3][1]] = scores[3, ranked[3][2]]  # places 2 and 3 score the same, and one of them is a target
    test[3] = sorted({ranked[3][2], ranked[3][5], ranked[3][6]} - {ranked[3][1]})
    scores[4, ranked[4][4]] = scores[4, ranked[4][5]]  # places 5 and 6
    test[4] = sorted({ranked[4][0], ranked[4][5], ranked[4][7]})
    test[10] = sorted(ranked[10][-3:])  # no hit
    test[11] = sorted(ranked[11][:3])  # all hits
    lists = []
    for u in range(USERS):
        order = sorted((i for i in range(ITEMS) if i not in train[u]), key=lambda i, u=u: (-scores[u, i], i))
        lists.append(order[: SHORT.get(u, LENGTH)])
    names = {"users": [f"u{u:02d}" for u in range(USERS)], "items": [f"i{i:02d}" for i in range(ITEMS)]}
    case = {**names, "k": K, "train": train, "test": test, "scores": scores.tolist(), "lists": lists}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in case.items())
    Path(__file__).with_name("case.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
