"""The official code's half of `search.py steps --repo PATH`: a step of its search on the CPU whenever it is asked for.

    python benchmarks/adarec_side.py PATH --batch FILE --threads 1

PATH is a checkout of `Anonymous-2611/AdaRec` (one commit, 501c008; no licence, so none of it is here). Its own loop,
`do_train` of `student_search.py`, gets its own models with the preset "nin-search" and a loader of one batch. What is
changed so that it runs: the devices are the CPU; `np.float`, which NumPy dropped, is `float`; alpha is not pickled
after the step; pyemd's solver, a thousandth of the step, is POT's, which is the faster one. FILE is an npz of `history`
(B, L) item rows from 0, -1 = none, first; `label` likewise; `n_items`. Every line read is a step, answered
by a line when it is done. Nothing of ours is imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ot
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def main() -> None:
    """Answer line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--batch", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")  # what the code prints must not stand among the answers
    os.dup2(2, 1)
    torch.set_num_threads(asked.threads)
    with np.load(asked.batch) as found, tempfile.TemporaryDirectory() as folder:
        step = stepping(asked.repo, Path(folder), found["history"], found["label"], int(found["n_items"]))
        for _ in sys.stdin:
            step()
            print("done", file=answers, flush=True)


def stepping(
    repo: Path, folder: Path, history: NDArray[np.int64], label: NDArray[np.int64], n_items: int
) -> Callable[[], None]:
    """Build teacher and supernet; one epoch of one batch is a step."""
    numpy: Any = np
    numpy.float = float
    pyemd: Any = types.ModuleType("pyemd")
    pyemd.emd_with_flow = emd_with_flow
    sys.modules["pyemd"] = pyemd
    sys.path.insert(0, str(repo))
    code: Any = importlib.import_module("student_search")  # of the checkout
    args = code.student_search_parser("nin").parse_args(["--preset", "nin-search", "--name", "a step"])
    code.load_preset(args)
    args.loader_num_items, args.loader_num_aux_vocabs, args.loader_max_len = n_items, 1, history.shape[1]
    args.train_log_every = 2  # of one batch none is logged
    teacher, student = code.NextItNet(args).eval(), code.StudentSearch(args)
    weights = {"lr": args.train_model_lr, "weight_decay": args.train_model_wd}
    alpha = {"lr": args.train_alpha_lr, "weight_decay": args.train_alpha_wd}
    code.args, code.teacher, code.model_search = args, teacher, student
    code.optim_model = torch.optim.AdamW(student.net_parameters(), **weights)
    code.optim_alpha = torch.optim.AdamW(student.alpha_parameters(), **alpha)
    code.train_loader = [[torch.from_numpy(rows + 1) for rows in (history, label)]]  # 0 pads
    code.device_teacher = code.device_student = torch.device("cpu")
    code.all_alpha_folder = code.final_alpha_folder = folder
    code.save_alpha = code.output_alpha_to_logger = nothing

    def step() -> None:
        code.do_train(0)

    return step


def nothing(*_: object, **__: object) -> None:
    """In place of what writes and prints alpha."""


def emd_with_flow(
    first: NDArray[np.float64], second: NDArray[np.float64], costs: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """As pyemd has it: the least cost, and the plan."""
    plan: NDArray[np.float64] = ot.emd(first, second, costs)
    return float((plan * costs).sum()), plan


if __name__ == "__main__":
    main()
