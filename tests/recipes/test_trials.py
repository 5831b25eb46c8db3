"""Tuning: the same trials for every method, judged on validation data, each once, whoever is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import recdistill.recipes.lessons as lessons_module
from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.errors import TrainingError, UsageError
from recdistill.methods import METHODS
from recdistill.methods.ranges import Choice, LinearRange, LogRange, flat, overlaid
from recdistill.methods.source import code_of
from recdistill.recipes.listener import Silent
from recdistill.recipes.runfile import RunSettings, resolve
from recdistill.recipes.study import Study
from recdistill.recipes.suggest import suggest
from recdistill.recipes.train import TrainSettings
from recdistill.recipes.trials import BASE, Trial, Tuned, edges_told, space, tuned
from recdistill.settings import overlay, parse

SPACE = {"train.lr": LogRange(1e-4, 1e-1), "method.share": LinearRange(0, 1), "method.of": Choice(("a", "b", "c"))}
TABLE = {
    "data": {"path": "log.parquet"},
    "teacher": {"model": "mf", "dim": 6},
    "student": {"model": "mf", "dim": 3},
    "method": {"name": "rrd", "near": 8, "far": 8, "reach": 16, "depth": 20},
    "train": {"epochs": 2, "device": "cpu", "batch": 256},
    "evaluate": {"latency": False},
}


def study(folder, *assign, log=None):
    run = parse(RunSettings, overlay({**TABLE, "output": {"dir": str(folder)}}, assign))
    log = planted(users=40, items=50, interactions=600, dim=4, seed=1) if log is None else log
    return Study(run, resolve(run), log, Silent(), run.train.seed)


def search(of, method="rrd", trials=4):
    plan = of.plan
    settings = plan.student.model_dump(mode="json")
    return tuned(of, "mf", settings, method, trials=trials, how=of.how(method), training=plan.train)


def counted(monkeypatch, at=None):
    """The trainings of students, in order; one may be made to fail."""
    real, calls = lessons_module.distill, []

    def train(teacher, model, *words, **more):
        calls.append({"method": more["method"], "training": more["training"], "settings": more["settings"]})
        if at is not None and len(calls) - 1 in at:
            raise at[len(calls) - 1]
        return real(teacher, model, *words, **more)

    monkeypatch.setattr(lessons_module, "distill", train)
    return calls


# ranges


def test_a_range_knows_what_is_in_it_and_what_is_nearest():
    assert 1e-3 in LogRange(1e-4, 1e-1)
    assert 0.2 not in LogRange(1e-4, 1e-1)
    assert "a" not in LinearRange(0, 1)
    assert LogRange(1e-4, 1e-1).nearest(0) == 1e-4
    assert LinearRange(0, 1).nearest(2) == 1
    assert Choice(("a", "b")).nearest("c") == "a"
    assert (str(LogRange(1e-4, 1)), str(LinearRange(0, 1)), str(Choice((1, 2)))) == (
        "0.0001 to 1, log",
        "0 to 1",
        "1 or 2",
    )


@pytest.mark.parametrize("wrong", [lambda: LogRange(0, 1), lambda: LinearRange(1, 1), lambda: Choice(("a", "a"))])
def test_what_is_no_range_is_refused(wrong):
    with pytest.raises(UsageError, match=r"A (log range|range|choice)"):
        wrong()


def test_values_are_read_and_written_at_dotted_keys():
    settings = {"de": {"weight": 0.01, "experts": 3}, "near": 5}
    assert flat(settings, {"de.weight": LogRange(1e-3, 1), "near": LinearRange(1, 9)}) == {"de.weight": 0.01, "near": 5}
    changed = overlaid(settings, {"de.weight": 0.5})
    assert changed == {"de": {"weight": 0.5, "experts": 3}, "near": 5}
    assert settings["de"]["weight"] == 0.01, "the original stays"
    with pytest.raises(KeyError, match="de"):
        flat(settings, {"de": LogRange(1, 2)})


# suggestions


def test_a_suggestion_is_a_function_of_the_finished_trials():
    finished = [({"train.lr": 1e-3, "method.share": 0.1 * n, "method.of": "b"}, 0.1 * n) for n in range(6)]
    first = suggest(SPACE, finished, seed=7, purpose="rrd")
    assert suggest(SPACE, finished, seed=7, purpose="rrd") == first
    assert all(first[key] in each for key, each in SPACE.items())
    assert suggest(SPACE, finished, seed=8, purpose="rrd") != first
    assert suggest(SPACE, finished, seed=7, purpose="de") != first
    assert suggest(SPACE, finished[:5], seed=7, purpose="rrd") != first


def test_suggestions_go_where_trials_were_good():
    def worth(values):
        return 1 - abs(np.log10(values["train.lr"]) + 2) / 3  # best at 1e-2

    late = []
    for seed in range(6):
        finished = []
        for _ in range(16):
            values = suggest({"train.lr": LogRange(1e-4, 1e-1)}, finished, seed=seed, purpose="x")
            finished.append((values, worth(values)))
        late += [value for _, value in finished[8:]]
    assert np.mean(late) > 0.78, "random ones are worth 0.72 on average"


def test_values_outside_their_range_are_told_as_the_nearest():
    told = [({"train.weight_decay": 0.0}, 0.2)]
    assert suggest({"train.weight_decay": LogRange(1e-6, 1e-1)}, told, seed=1, purpose="x")


# trials


def test_every_method_has_the_same_trials_and_begins_with_its_own_settings(tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    of = study(tmp_path)
    for method in ("plain", "rrd"):
        found = search(of, method)
        assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
        assert set(found.trials[0].values) == {f"train.{key}" for key in BASE} | (
            {"method.weight", "method.sharpness"} if method == "rrd" else set()
        )
        assert found.trials[0].values["train.lr"] == of.plan.train.lr
        assert len({tuple(trial.values.items()) for trial in found.trials}) == 4
        assert all(0 <= trial.metric <= 1 for trial in found.trials)
    assert [call["method"] for call in calls] == ["plain"] * 4 + ["rrd"] * 4
    assert calls[4]["settings"] == of.plan.method.model_dump(mode="json")
    assert all(call["settings"]["near"] == 8 for call in calls[4:]), "what is not tuned stays the run file's"


def test_the_best_on_validation_data_is_chosen_and_test_data_are_not_looked_at(tmp_path):
    of = study(tmp_path)
    found = search(of, "plain")
    assert found.best.metric == max(trial.metric for trial in found.trials)
    assert found.training.lr == found.best.values["train.lr"]
    other = study(tmp_path / "other")
    parts = split(of.log, "leave-last-out")
    targets = replace(parts.test.targets, indices=(parts.test.targets.indices + 1) % of.log.n_items)
    vars(other)["split"] = replace(parts, test=replace(parts.test, targets=targets))
    assert [t.metric for t in search(other, "plain").trials] == [t.metric for t in found.trials]


def test_a_trial_that_fails_counts_is_told_and_is_never_chosen(tmp_path, monkeypatch):
    calls = counted(monkeypatch, at={0: TrainingError("The loss 'base' is not finite"), 2: TrainingError("Nor here")})
    found = search(study(tmp_path), "plain")
    assert len(calls) == len(found.trials) == 4
    assert [trial.metric is None for trial in found.trials] == [True, False, True, False]
    assert found.trials[0].failed == "The loss 'base' is not finite"
    assert found.best.number in (1, 3)
    assert search(study(tmp_path), "plain").trials == found.trials, "a failure is a result too: it is not tried again"
    assert len(calls) == 4


def test_finished_trials_are_read_their_checkpoints_gone_and_more_trials_only_add(tmp_path, monkeypatch):
    first = search(study(tmp_path), "plain", trials=3)
    assert not list((tmp_path / "work").glob("*trial*.safetensors"))
    calls = counted(monkeypatch)
    assert search(study(tmp_path), "plain", trials=3) == first
    assert calls == []
    more = search(study(tmp_path), "plain", trials=5)
    assert more.trials[:3] == first.trials
    assert len(calls) == 2


def test_a_search_that_is_stopped_anywhere_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole = search(study(tmp_path / "whole"))
    for stop in (1, 3):
        with monkeypatch.context() as patch:
            counted(patch, at={stop: KeyboardInterrupt()})
            with pytest.raises(KeyboardInterrupt):
                search(study(tmp_path / str(stop)))
        resumed = search(study(tmp_path / str(stop)))
        assert [(t.values, t.metric) for t in resumed.trials] == [(t.values, t.metric) for t in whole.trials]
        assert resumed.how == whole.how


def test_a_search_killed_by_the_system_goes_on_with_the_same_suggestions(tmp_path):
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_trials as t
        import recdistill.recipes.trials as trials
        put, done = trials._judged, []
        def judged(lesson):
            if len(done) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(0)
            return put(lesson)
        trials._judged = judged
        t.search(t.study({str(tmp_path / "killed")!r}), "plain")
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    resumed, whole = search(study(tmp_path / "killed"), "plain"), search(study(tmp_path / "whole"), "plain")
    assert [(t.values, t.metric) for t in resumed.trials] == [(t.values, t.metric) for t in whole.trials]


def test_a_changed_method_is_tried_again_and_the_others_are_not(tmp_path, monkeypatch):
    import recdistill.recipes.trials as trials_module

    of = study(tmp_path)
    search(of, "plain", trials=2)
    search(of, "rrd", trials=2)
    calls = counted(monkeypatch)
    monkeypatch.setattr(trials_module, "code_of", lambda *names: "changed" if names[0] == "rrd" else code_of(*names))
    search(study(tmp_path), "plain", trials=2)
    search(study(tmp_path), "rrd", trials=2)
    assert [call["method"] for call in calls] == ["rrd", "rrd"]


def test_nothing_to_judge_by_and_no_trials_are_said(tmp_path):
    with pytest.raises(UsageError, match=r"Tuning takes one trial or more; got 0\. --trials 0 tunes nothing"):
        search(study(tmp_path), trials=0)
    none = study(tmp_path / "none", "data.split='ratio'", "data.valid=0")
    with pytest.raises(UsageError, match="Tuning is judged on validation data, and there are none"):
        search(none)


def test_the_code_of_a_method_is_its_own_its_terms_and_its_losses(tmp_path, monkeypatch):
    from recdistill.methods import source

    before = {name: code_of(name) for name in METHODS}
    assert len(set(before.values())) == len(METHODS)
    real = source._read

    def edited(of):
        def read(module):
            text, imported = real(module)
            return (text + " edited" if module == of else text), imported

        return read

    for module, changed in (
        ("recdistill.methods.fitnet", {"fitnet"}),
        ("recdistill.terms.projection_match", {"fitnet"}),
        ("recdistill.methods.base", set()),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(source, "_read", edited(module))
            assert changed == {name for name in METHODS if code_of(name) != before[name]}, module
    with monkeypatch.context() as patch:
        patch.setattr(source, "_read", edited("recdistill.losses.relaxed_ranking"))
        assert {"rrd", "de-rrd", "ir-rrd"} <= {name for name in METHODS if code_of(name) != before[name]}


def test_winners_at_the_edge_of_what_is_searched_are_named():
    def found(method="rrd", n=2, **values):
        trials = [Trial(at, values, 0.5, 1, 1.0) for at in range(n)]
        given = {"train.lr": LogRange(1e-4, 1e-2), "method.share": LinearRange(0, 1), "method.of": Choice(("a", "b"))}
        return Tuned(method, "mf", {}, 7, "ndcg@10", tuple(trials), {}, TrainSettings(), given)

    inside = {"train.lr": 1e-3, "method.share": 0.03, "method.of": "a"}
    high, beyond = inside | {"train.lr": 9.5e-3}, inside | {"train.lr": 1e-6, "method.share": 0.99}
    assert found(**inside).at_edge == found(n=1, **high).at_edge == edges_told([found(**inside)]) == []
    assert found(**high).at_edge == ["lr 0.0095 (0.0001 to 0.01, log)"]
    assert edges_told([found(**inside), found(**high), found("de", **beyond)]) == [
        "Ended at the edge of what is searched, beyond which it may be better: rrd's lr 0.0095 (0.0001 to 0.01, log); "
        "de's lr 1e-06 (0.0001 to 0.01, log) and share 0.99 (0 to 1)."
    ]
    lost = replace(found(**high), trials=(replace(found(**high).best, metric=None),) * 2)
    assert lost.at_edge == []


def test_everything_that_is_searched_is_named_by_the_key_of_a_run_file():
    found = space("de-rrd", METHODS["de-rrd"].settings())
    assert list(found) == ["train.lr", "train.weight_decay", "method.de.weight", "method.rrd.weight"]
    assert "method.parts.htd.weight" in space("sum", METHODS["sum"].settings())
