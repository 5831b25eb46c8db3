"""Helpers of a comparison: processes with one thread each that take what nobody is at.

A helper reads what is to be done from a file in the run's folder; what it says goes to `log/helper-<n>.log`, and every
line of its standard output is a piece of work that it has finished. One that dies is told of; what it was at is free
again, and its checkpoint is gone on with by whoever takes it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, TYPE_CHECKING, Any

from typing_extensions import override

from recdistill.errors import RecdistillError
from recdistill.recipes.cells import digest, write_text
from recdistill.recipes.labour import work_through
from recdistill.recipes.listener import Silent
from recdistill.recipes.runfile import RunSettings
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.recipes.contest import Terms
    from recdistill.recipes.labour import Task
    from recdistill.recipes.listener import Listener
    from recdistill.recipes.tune import Asking

__all__ = ["Crew", "help_out"]

_ONE = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_USER = 2  # exit status where the user can mend it
_REPLACED = 3  # helpers that died of a signal, at most: what kills each of them is not got round


@dataclass(frozen=True, eq=False, kw_only=True)
class Crew:
    """Several processes at the pieces of one comparison, or one tuning."""

    run: RunSettings
    terms: Terms | Asking
    """What is asked for: of a comparison, or of a tuning."""
    jobs: int
    """How many at once."""
    listener: Listener

    def work(self) -> None:
        """Come back when all helpers have ended: with everything done, or with what is left to the caller."""
        run, what = self.run.model_dump(mode="json", exclude_none=True), type(self.terms).__name__
        plan = {"run": run, "what": what, "terms": asdict(self.terms)}
        path = self.run.output.dir / "work" / f"helpers-{digest(plan)}.json"
        write_text(path, json.dumps(plan, indent=1) + "\n")
        self.listener.begin(f"{self.jobs} helpers; what they say: {self.run.output.dir / 'log'}/helper-*.log")
        heard: SimpleQueue[tuple[int, str | None]] = SimpleQueue()
        with ExitStack() as ended:
            helpers = [self._start(path, n, heard, ended) for n in range(1, self.jobs + 1)]
            alive, died = len(helpers), 0
            while alive:
                n, line = heard.get()
                if line is not None:
                    self.listener.say(f"{line} (helper {n})")
                    continue
                alive -= 1
                status = helpers[n - 1].wait()
                if status == 0:
                    continue
                why = f"signal {-status}" if status < 0 else f"exit status {status}"
                self.listener.say(f"Helper {n} died ({why}); the others go on with what it was at. {self._last(n)}")
                if status < 0 and died < _REPLACED:
                    died, alive = died + 1, alive + 1
                    helpers.append(self._start(path, len(helpers) + 1, heard, ended))

    def _start(
        self, plan: Path, n: int, heard: SimpleQueue[tuple[int, str | None]], ended: ExitStack
    ) -> subprocess.Popen[str]:
        log = self._log(n)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as said:
            helper = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-m", "recdistill.recipes.workers", str(plan)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, **_ONE},
            )
        ended.callback(_end, helper)
        assert helper.stdout is not None  # noqa: S101 - a pipe
        Thread(target=_listen, args=(helper.stdout, n, heard), daemon=True).start()
        return helper

    def _log(self, n: int) -> Path:
        return self.run.output.dir / "log" / f"helper-{n}.log"

    def _last(self, n: int) -> str:
        """The end of what it said."""
        lines = self._log(n).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"It last said: {lines[-1].strip()}" if lines else ""


def help_out(plan: Path) -> None:
    """What a helper does: everything that nobody else is at, a line of standard output for each piece."""
    import torch  # noqa: PLC0415

    from recdistill.recipes.comparing import contest_of  # noqa: PLC0415
    from recdistill.recipes.contest import Terms, tasks  # noqa: PLC0415
    from recdistill.recipes.folder import held  # noqa: PLC0415
    from recdistill.recipes.tune import Asking, study_of, tried  # noqa: PLC0415

    torch.set_num_threads(1)
    content: dict[str, Any] = json.loads(plan.read_text(encoding="utf-8"))
    run = parse(RunSettings, content["run"])
    asked: dict[str, Any] = content["terms"]

    def told(task: Task) -> None:
        sys.stdout.write(f"{task.name}: finished\n")
        sys.stdout.flush()  # where nobody listens any more, the helper ends here

    with held(run):
        if content["what"] == Asking.__name__:
            tried(study_of(run, _Plain()), Asking(**asked), told=told)
            return
        terms = Terms(
            methods=tuple(asked["methods"]),
            seeds=tuple(asked["seeds"]),
            sizes=tuple(asked["sizes"]),
            trials=asked["trials"],
            tune_each=asked["tune_each"],
        )
        contest = contest_of(run, terms, _Plain())
        work_through(tasks(contest), contest.cells, told=told)


class _Plain(Silent):
    """Writes to standard error, which is a file."""

    @override
    def say(self, text: str) -> None:
        sys.stderr.write(f"  {text}\n")
        sys.stderr.flush()

    @override
    def begin(self, stage: str) -> None:
        sys.stderr.write(f"{stage}\n")
        sys.stderr.flush()


def _listen(output: IO[str], n: int, heard: SimpleQueue[tuple[int, str | None]]) -> None:
    with output:
        for line in output:
            heard.put((n, line.rstrip("\n")))
    heard.put((n, None))


def _end(helper: subprocess.Popen[str]) -> None:
    """Nobody is left behind when the caller is stopped."""
    if helper.poll() is None:
        helper.terminate()
    helper.wait()


def _main(words: Sequence[str]) -> int:
    try:
        help_out(Path(words[0]))
    except RecdistillError as error:
        sys.stderr.write(f"error: {error}\n")
        return _USER
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
