"""implicit's own figures and factors. `pip install implicit`, then `python make_implicit.py`.

`evaluation.ranking_metrics_at_k` measures a model whose scores are those of the case: users' factors are their scores,
items' factors the identity. The factors of small trained models and their lists are written to implicit_models.npz, and
what ALS saves of itself to implicit_als_saved.npz.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.cpu.als import AlternatingLeastSquares as CpuAls
from implicit.cpu.bpr import BayesianPersonalizedRanking as CpuBpr
from implicit.evaluation import ranking_metrics_at_k
from implicit.nearest_neighbours import CosineRecommender
from scipy.sparse import csr_matrix
from shared import HERE, case, write


def matrix(lists: list[list[int]], columns: int) -> csr_matrix:
    pairs = [(u, i) for u, items in enumerate(lists) for i in items]
    user, item = np.array(pairs).T
    return csr_matrix((np.ones(len(pairs), np.float32), (user, item)), shape=(len(lists), columns))


def main() -> None:
    given = case()
    n_items = len(given["items"])
    train, test = matrix(given["train"], n_items), matrix(given["test"], n_items)
    model = CpuAls(factors=n_items)
    model.user_factors = np.float32(given["scores"])
    model.item_factors = np.eye(n_items, dtype=np.float32)
    values = {}
    for k in given["k"]:
        found = ranking_metrics_at_k(model, train, test, K=k, show_progress=False, num_threads=1)
        values |= {f"{name}@{k}": found[name] for name in ("precision", "map", "ndcg")}
    users = np.arange(len(given["users"]))
    lists, _ = model.recommend(users, train, N=max(given["k"]), filter_already_liked_items=True)
    write("implicit", version("implicit"), values, lists=lists.tolist(), function="ranking_metrics_at_k")

    rng = np.random.default_rng(5)
    log = csr_matrix((rng.random((40, 30)) < 0.2).astype(np.float32))
    kept: dict[str, np.ndarray] = {"indptr": log.indptr, "indices": log.indices}
    assert AlternatingLeastSquares is not CpuAls
    assert BayesianPersonalizedRanking is not CpuBpr
    for name, trained in {
        "als": AlternatingLeastSquares(factors=6, iterations=5, random_state=1, use_gpu=False),
        "bpr": BayesianPersonalizedRanking(factors=6, iterations=30, random_state=1, use_gpu=False),
        "cosine": CosineRecommender(K=10),
    }.items():
        trained.fit(log, show_progress=False)
        ids, scores = trained.recommend(np.arange(40), log, N=8, filter_already_liked_items=True)
        kept |= {f"{name}.lists": ids.astype(np.int32), f"{name}.scores": scores.astype(np.float32)}
        if name == "als":
            trained.save(str(HERE / "implicit_als_saved.npz"))
        if name != "cosine":
            kept |= {f"{name}.user_factors": trained.user_factors, f"{name}.item_factors": trained.item_factors}
    np.savez_compressed(HERE / "implicit_models.npz", **kept)


if __name__ == "__main__":
    main()
