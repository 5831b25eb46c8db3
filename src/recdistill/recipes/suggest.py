"""What to try next: Optuna's TPE as a function of what is finished, so that a killed search goes on as it would have.

Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011. The sampler is built anew for every
suggestion from the finished trials and a seed, and so has no state that a killed process could lose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recdistill import rng
from recdistill.errors import UsageError, problem
from recdistill.methods.ranges import Choice, LogRange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recdistill.methods.ranges import Range, Value

__all__ = ["RANDOM", "suggest"]

RANDOM = 4
"""Trials before the sampler has seen enough to prefer anything: the first are the defaults and random ones."""
_DIGITS = 3  # of a suggested number: a run file that repeats it reads well


def suggest(
    space: Mapping[str, Range], finished: Sequence[tuple[Mapping[str, Value], float]], *, seed: int, purpose: str
) -> dict[str, Value]:
    """Values to try next; the same arguments give the same values.

    Args:
        space: key -> range.
        finished: the values of every finished trial and what they were worth, in [0, 1], greater is better; values
            outside their range are told to the sampler as the nearest inside.
        seed: of the draws.
        purpose: what is searched ("rrd"); two purposes never share draws.

    Raises:
        UsageError: Optuna is not installed.
    """
    optuna = _optuna()
    told = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        start = rng.key(seed, f"trials of {purpose}", len(finished)) % 2**32
        sampler = optuna.samplers.TPESampler(seed=start, n_startup_trials=RANDOM)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        spread = {key: _distribution(optuna, each) for key, each in sorted(space.items())}
        for values, worth in finished:
            known = {key: space[key].nearest(values[key]) for key in spread}
            study.add_trial(optuna.trial.create_trial(params=known, distributions=spread, value=worth))
        found = study.ask(spread).params
    finally:
        optuna.logging.set_verbosity(told)
    return {key: _short(found[key], each) for key, each in space.items()}


def _short(value: Value, of: Range) -> Value:
    """Few digits, inside the range."""
    return of.nearest(value if isinstance(value, str) else float(f"{value:.{_DIGITS}g}"))


def _distribution(optuna: Any, of: Range) -> Any:  # noqa: ANN401 - an optional package
    if isinstance(of, Choice):
        return optuna.distributions.CategoricalDistribution(of.values)
    return optuna.distributions.FloatDistribution(of.low, of.high, log=isinstance(of, LogRange))


def _optuna() -> Any:  # noqa: ANN401 - an optional package
    try:
        import optuna  # noqa: PLC0415
    except ImportError:
        remedy = 'Install it: pip install "recdistill[tune]"; or compare with the settings as they are: --trials 0'
        raise UsageError(problem("Tuning needs the package 'optuna'", remedy=remedy)) from None
    return optuna
