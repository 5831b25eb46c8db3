"""The whole path in Python: a log, a teacher, a student, a card, recommendations, a bundle.

Run it anywhere: the log is made up. With a file of yours, replace the first line by `log = rd.read("ratings.csv")`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import recdistill as rd
from recdistill.data.synthetic import planted


def main(out: Path, epochs: int = 10) -> None:
    log = planted(users=300, items=400, interactions=9_000, seed=7)
    parts = rd.split(log, "leave-last-out")
    training = rd.TrainSettings(epochs=epochs, lr=5e-3, every=2)

    teacher = rd.fit("mf", parts.train, dim=64, valid=parts.valid, training=training)
    student = rd.distill(
        teacher, "mf", parts.train, method="rrd", dim=8, valid=parts.valid, settings={"weight": 1e-2}, training=training
    )
    print(rd.compare({"teacher": teacher, "student": student}, parts.test, latency=False))

    student.save(out / "bundle")
    service = rd.Service.from_bundle(out / "bundle")
    print(service.recommend(["u7", "u9", "somebody new"], k=3).to_dict())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
