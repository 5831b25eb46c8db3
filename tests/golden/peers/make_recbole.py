"""RecBole's own figures, checkpoints and lists.

`pip install "setuptools<81" numpy==1.26.4 pandas==2.2.3 scipy==1.11.4 recbole==1.2.1`, then `python make_recbole.py`.

The case is measured by `Trainer.evaluate` on a BPR whose users' vectors are their scores and whose items' vectors are
the identity. Small trained models are kept as `Trainer.fit` saves them, with the saved dataset that names their rows.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
from recbole.utils.case_study import full_sort_topk
from shared import HERE, case, rows, write

NAMES = {"Recall": "recall", "MRR": "mrr", "NDCG": "ndcg", "Hit": "hr", "Precision": "precision", "MAP": "map"}


def inter(path: Path, pairs: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{u}\t{i}" for u, i in pairs]
    path.write_text("\n".join(["user_id:token\titem_id:token", *lines]) + "\n")


def made(model: str, folder: Path, name: str, **settings: object) -> tuple:
    sys.argv = sys.argv[:1]  # its Config reads the command line
    base = {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id"]},
        "checkpoint_dir": str(folder / "saved"),
        "metrics": list(NAMES),
        "topk": [3, 5],
        "valid_metric": "NDCG@5",
        "metric_decimal_place": 12,
        "use_gpu": False,
        "show_progress": False,
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "RO", "mode": "full"},
    }
    config = Config(model=model, dataset=name, config_dict={**base, **settings})
    init_seed(1, reproducibility=True)
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    net = get_model(model)(config, train.dataset)
    return config, dataset, (train, valid, test), net, get_trainer(config["MODEL_TYPE"], model)(config, net)


def figures(folder: Path) -> None:
    given = case()
    users, items = given["users"], given["items"]
    for part, table in (("train", given["train"]), ("valid", given["test"]), ("test", [[0]])):
        inter(folder / "tiny" / f"tiny.{part}.inter", [(users[u], items[i]) for u, i, *_ in rows(table)])
    files = ["train", "valid", "test"]
    _, dataset, (_, valid, _), net, trainer = made(
        "BPR", folder, "tiny", benchmark_filename=files, embedding_size=len(items)
    )
    user = [u for u in users if u in dataset.field2token_id["user_id"]]
    rows_of = dataset.token2id("user_id", np.array(user))
    columns = dataset.token2id("item_id", np.array(items))
    with torch.no_grad():
        net.user_embedding.weight[rows_of] = torch.tensor(
            [given["scores"][users.index(u)] for u in user], dtype=torch.float32
        )
        net.item_embedding.weight.zero_()
        net.item_embedding.weight[columns] = torch.eye(len(items))
    found = trainer.evaluate(valid, load_best_model=False, show_progress=False)
    ours = {theirs.lower(): name for theirs, name in NAMES.items()}
    values = {f"{ours[key.split('@')[0]]}@{key.split('@')[1]}": value for key, value in found.items()}
    asked = [u for u in user if given["test"][users.index(u)]]
    _, best = full_sort_topk(dataset.token2id("user_id", np.array(asked)), net, valid, k=5)
    lists: list[list[int]] = [[] for _ in users]
    for u, row in zip(asked, dataset.id2token("item_id", best.numpy()), strict=True):
        lists[users.index(u)] = [items.index(i) for i in row]
    write("recbole", recbole.__version__, values, lists=lists, function="Trainer.evaluate, mode full")


def checkpoints(folder: Path) -> None:
    rng = np.random.default_rng(8)
    pairs = [(f"u{u}", f"i{i}") for u, i in np.argwhere(rng.random((30, 20)) < 0.3)]
    inter(folder / "small" / "small.inter", pairs)
    kept = {"log.user": np.array([u for u, _ in pairs]), "log.item": np.array([i for _, i in pairs])}
    for model in ("BPR", "LightGCN", "NeuMF"):
        settings = {
            "embedding_size": 4,
            "epochs": 3,
            "save_dataset": True,
            "mf_embedding_size": 4,
            "mlp_embedding_size": 4,
            "mlp_hidden_size": [4],
        }
        settings = {k: v for k, v in settings.items() if model == "NeuMF" or not k.startswith(("mf_", "mlp_"))}
        _, dataset, (train, valid, test), net, trainer = made(model, folder, "small", **settings)
        trainer.fit(train, valid, show_progress=False, verbose=False)
        shutil.copy(trainer.saved_model_file, HERE / f"recbole_{model.lower()}.pth")
        net.load_state_dict(torch.load(trainer.saved_model_file, weights_only=False)["state_dict"])
        users = dataset.field2id_token["user_id"][1:]
        if model != "NeuMF":
            net.load_other_parameter(torch.load(trainer.saved_model_file, weights_only=False)["other_parameter"])
        score, best = full_sort_topk(dataset.token2id("user_id", users), net, test, k=5)
        kept |= {
            f"{model}.scores": score.numpy(),
            f"{model}.items": dataset.id2token("item_id", best.numpy()).astype(str),
        }
    kept |= {"users": users.astype(str), "items": dataset.field2id_token["item_id"][1:].astype(str)}
    saved = next(folder.rglob("small-Dataset.pth"))
    shutil.copy(saved, HERE / "recbole_dataset.pth")
    np.savez_compressed(HERE / "recbole_models.npz", **kept)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_in:
        os.chdir(made_in)  # it writes logs where it stands
        figures(Path(made_in))
        checkpoints(Path(made_in))
