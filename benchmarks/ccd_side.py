"""One half of `ccd_peer.py`, a process of its own: a student update, official or ours, its CPU seconds and peak memory.

Reads one JSON object: `side` ("official", "ours", or "prepare", which writes what the official code reads), `work` (the
folder that `ccd_peer.py` filled), `epochs`, and `repo` (the official clone) or `data`, `preset` and `tuned`. Answers
with one JSON line; what the official code prints goes to `work`/official.log. Its script runs as it is, by its own
command line, where its relative paths lead into `work`; functions of either side are only timed. A part's peak is the
kernel's high-water mark, set back when the part begins, so this runs on Linux alone.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from argparse import Namespace
from collections import defaultdict
from functools import wraps
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "BPR_1"
"""What the official code calls an MF student with seed 1."""
STUDENT = f"ckpt/Yelp/Student/{MODEL}/Method/Distilled/TASK_0.pth"
TEACHER = "ckpt/Yelp/Teacher/base_teacher/Ensemble/TASK_0_score_mat.pth"
COMMAND = (
    f"S_update.py --d Yelp -m {MODEL} --tt 1 --rl --US --UP --ab 50 --ss 1 --ps 0 --sw 1.0 --pw 0.0 --max_epoch {{}}"
)
"""The first line of the official run.sh, but for its student, a LightGCN."""


class Meter:
    """When parts ran, in CPU seconds, and the peaks in and outside of them; a part inside another is not told apart."""

    def __init__(self) -> None:
        """Begin."""
        self.parts: list[tuple[str, float, float]] = []
        self.peaks: dict[str, float] = defaultdict(float)
        self._inside = False
        _forget()
        self._began = process_time()

    def times(self, owner: Any, name: str, part: str | Callable[..., str]) -> None:  # noqa: ANN401
        """From now on, `owner.name` is a part; which, may depend on how it is called."""
        work = getattr(owner, name)

        @wraps(work)
        def timed(*given: Any, **named: Any) -> Any:  # noqa: ANN401
            if self._inside:
                return work(*given, **named)
            self._peak("the rest")
            self._inside, began = True, process_time()
            try:
                return work(*given, **named)
            finally:
                self._inside, ended = False, process_time()
                which = part if isinstance(part, str) else part(*given, **named)
                self.parts.append((which, began - self._began, ended - self._began))
                self._peak(which)

        setattr(owner, name, timed)

    def told(self) -> dict[str, Any]:
        """Seconds of the whole, (name, begin, end) of each part, and peak GB by part."""
        whole = process_time() - self._began
        self._peak("the rest")
        return {"cpu_s": whole, "parts": self.parts, "peak_gb": dict(self.peaks)}

    def _peak(self, part: str) -> None:
        self.peaks[part] = max(self.peaks[part], _high())
        _forget()


def _high() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def _forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def official(job: dict[str, Any]) -> dict[str, Any]:
    """The official script: whole, with its parts timed."""
    utils, loaders = _imported(job)
    meter = Meter()
    meter.times(utils, "get_SNM", "adjacency")
    meter.times(utils, "convert_to_rank_mat", "candidates")
    meter.times(utils, "get_total_replay_learning_dataset", "draw")
    meter.times(utils, "get_sorted_score_mat", "validation: scores and lists")
    meter.times(utils, "get_eval_with_mat", "validation: new users")
    meter.times(
        utils,
        "get_CL_result",
        lambda *_, return_value, **__: "validation" if return_value else "reports before and after",
    )
    meter.times(loaders.implicit_CF_dataset, "negative_sampling", "negatives")
    sys.argv = COMMAND.format(job["epochs"]).split()
    runpy.run_path(str(Path(job["repo"]) / "Run" / "S_update.py"), run_name="__main__")
    return meter.told()


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """The student as distilled and a teacher's scores, in the official form; the teacher's are the student's."""
    utils, _ = _imported(job)
    with np.load(Path(job["work"]) / "student.npz") as found:
        user, item = (torch.from_numpy(found[name]) for name in ("user", "item"))
    args = Namespace(sd=user.shape[1], T=5.0, nc=10)
    weights = dict(utils.get_model(len(user), len(item), None, "cpu", args, "BPR").state_dict())
    weights |= {"base_model.user_emb.weight": user, "base_model.item_emb.weight": item}
    scores = user @ item.T
    for name, held in ((STUDENT, {"best_model": weights, "score_mat": scores}), (TEACHER, {"score_mat": scores})):
        path = Path(job["work"]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(held, path)
    return {}


def _imported(job: dict[str, Any]) -> tuple[Any, Any]:
    if not hasattr(np, "in1d"):  # gone since NumPy 2.4
        np.in1d = np.isin  # pyright: ignore[reportAttributeAccessIssue]
    sys.path.insert(0, job["repo"])
    run = Path(job["work"]) / "Run"
    run.mkdir(exist_ok=True)
    os.chdir(run)
    from Utils import data_loaders, utils

    return utils, data_loaders


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Our update of the same student on the same block."""
    from recdistill.continual import learning, replay, stages
    from recdistill.continual.ensemble import Lists
    from recdistill.continual.settings import TUNED, over, settings_of
    from recdistill.continual.snapshot import Snapshot
    from recdistill.data.blocks import official as stream_of

    stream_of(Path(job["data"]) / "ccd_yelp")  # what is imported at the first call is nobody's
    meter = Meter()
    meter.times(stages, "memories", "candidates")
    meter.times(replay.Remembered, "draw", "draw")
    meter.times(learning, "evaluate", "validation")
    stream = stream_of(Path(job["data"]) / "ccd_yelp")
    block, before = stream[1], stream[0].train.csr()
    train = block.train.csr()
    student, _ = Snapshot.load(Path(job["work"]) / "student.safetensors")
    with np.load(Path(job["work"]) / "lists.npz") as found:
        lists = Lists.from_arrays(dict(found))
    c = settings_of(job["preset"])
    if job["tuned"]:
        c = over(c, TUNED[1])
    how = c.update if job["epochs"] is None else over(c, {"update": {"training": {"epochs": job["epochs"]}}}).update
    sources = stages.Sources(stability=student, student=student)
    avoid = stages.believed(
        block.n_users,
        block.n_items,
        lists=lists,
        models=sources.all(),
        k=how.avoid,
        without=train if how.replay.masks == "alike" else None,
        users=np.flatnonzero(train.degrees),
    )
    done = stages.update_student(block, before, student, sources, how, avoid=avoid, run=learning.Run(1))
    return {**meter.told(), "epochs": len(done.report.history), "recall@20": done.report.best[learning.METRIC].value}


def main() -> None:
    """Answer one line."""
    answers = os.fdopen(os.dup(1), "w")  # what the official code prints must not stand among the answers
    job = json.loads(sys.stdin.read())
    os.dup2(os.open(Path(job["work"]) / f"{job['side']}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    torch.set_num_threads(1)
    weight = torch.nn.Parameter(torch.zeros(1))
    torch.optim.Adam([weight]).zero_grad()  # imports much when it is first made
    told = {"official": official, "ours": ours, "prepare": prepare}[job["side"]](job)
    print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
