"""Intervals and tests: against scipy, against brute force, and at the edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recdistill.errors import UsageError
from recdistill.evaluation.compare import bootstrap_interval, holm, paired_test, retention


def hits(n, share, seed=0):
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def test_the_interval_of_a_hit_rate_is_the_binomial_one():
    values = np.repeat([1.0, 0.0], [400, 600])
    found = bootstrap_interval(values, resamples=20_000)
    wide = 1.96 * np.sqrt(0.4 * 0.6 / 1000)
    assert (found.mean, found.n) == (0.4, 1000)
    assert found.low == pytest.approx(0.4 - wide, abs=0.003)
    assert found.high == pytest.approx(0.4 + wide, abs=0.003)


def test_values_that_do_not_repeat_get_the_interval_scipy_gives():
    values = np.random.default_rng(3).gamma(2, size=800)
    ours = bootstrap_interval(values, resamples=4000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)


def test_repeated_and_jittered_values_have_the_same_interval():
    values = hits(900, 0.3)
    exact = bootstrap_interval(values, resamples=8000)
    jittered = bootstrap_interval(values + 1e-9 * np.arange(900), resamples=8000)  # all distinct: the other way
    assert jittered.low == pytest.approx(exact.low, abs=0.003)
    assert jittered.high == pytest.approx(exact.high, abs=0.003)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = hits(300, 0.5)
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_equal_values_have_no_width():
    assert bootstrap_interval([0.5] * 7).low == bootstrap_interval([0.5] * 7).high == 0.5
    assert bootstrap_interval([0.25]).n == 1


def test_seeds_that_differ_widen_the_interval():
    users = hits(500, 0.5)
    alike = bootstrap_interval(np.stack([users] * 5))
    apart = bootstrap_interval(np.stack([users + shift for shift in (-0.2, -0.1, 0, 0.1, 0.2)]))
    assert alike.mean == pytest.approx(apart.mean)
    assert apart.high - apart.low > 1.5 * (alike.high - alike.low)
    assert alike.high - alike.low == pytest.approx(
        bootstrap_interval(users).high - bootstrap_interval(users).low, rel=0.15
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=9))
def test_few_users_get_the_exact_permutation_p(differences):
    d = np.array(differences, float)
    signs = np.array(list(itertools.product([-1, 1], repeat=len(d))))
    expected = (np.abs(signs @ d) >= abs(d.sum()) - 1e-9).mean()
    assert paired_test(d, np.zeros(len(d))).p_permutation == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.05])
def test_many_users_agree_with_scipy(shift):
    rng = np.random.default_rng(8)
    b = rng.random(700)
    a = b + rng.normal(shift, 0.3, 700)
    found = paired_test(a, b)
    theirs = stats.ttest_rel(a, b)
    assert found.t == pytest.approx(theirs.statistic)
    assert found.p_t == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.p_permutation == pytest.approx(theirs.pvalue, abs=0.02)
    assert found.wins + found.losses + found.ties == 700


@pytest.mark.parametrize("n", [2, 3, 5, 30, 10_000])
@pytest.mark.parametrize("t", [0.01, 1.0, 3.0, 30.0])
def test_the_tail_of_student_is_right(n, t):
    base = np.tile([1.0, -1.0], (n + 1) // 2)[:n]
    base = (base - base.mean()) / base.std(ddof=1)
    d = base + t / np.sqrt(n)
    expected = stats.ttest_1samp(d, 0)
    found = paired_test(d, np.zeros(n))
    assert found.p_t == pytest.approx(expected.pvalue, rel=1e-8, abs=1e-300)


def test_no_difference_and_a_constant_one():
    same = paired_test([0.5, 0.2], [0.5, 0.2])
    assert (same.p_permutation, same.p_t, same.t, same.ties) == (1, 1, 0, 2)
    constant = paired_test([2.0] * 40, [1.0] * 40)
    assert constant.p_t == 0
    assert constant.p_permutation == pytest.approx(1 / 10_001)  # never 0
    assert paired_test([1.0], [0.0]).p_t == 1


def test_swapping_the_systems_turns_the_sign_only():
    a, b = hits(400, 0.5, 1), hits(400, 0.4, 2)
    one, two = paired_test(a, b), paired_test(b, a)
    assert one.difference.mean == -two.difference.mean
    assert (one.wins, one.losses) == (two.losses, two.wins)
    assert one.p_t == two.p_t
    assert one.p_permutation == two.p_permutation


def test_seeds_are_averaged_user_by_user_before_the_test():
    a = np.stack([hits(300, 0.5, s) for s in range(3)])
    b = hits(300, 0.4, 9)
    assert paired_test(a, b) == paired_test(a.mean(axis=0), b)


def test_holm_steps_down_and_keeps_the_order():
    # sorted .01 .02 .03 .04, times 4 3 2 1 = .04 .06 .06 .04, running maximum .04 .06 .06 .06
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    with pytest.raises(UsageError, match=r"numbers in \[0, 1\]"):
        holm([1.2])


def test_retention_is_a_ratio_of_means_with_paired_users():
    teacher = hits(1000, 0.5)
    student = teacher * (np.arange(1000) % 10 != 0)  # keeps about nine hits in ten
    found = retention(student, teacher)
    assert found.mean == pytest.approx(100 * student.mean() / teacher.mean())
    assert found.low < found.mean < found.high
    assert retention(teacher, teacher).low == retention(teacher, teacher).high == 100  # paired: no width at all
    # delta method: the ratio of two paired means
    residual = (student - found.mean / 100 * teacher) / teacher.mean()
    wide = 2 * 1.96 * 100 * residual.std() / np.sqrt(1000)
    assert found.high - found.low == pytest.approx(wide, rel=0.1)


def test_retention_over_seeds_takes_each_seed_with_its_teacher():
    teacher = np.stack([hits(600, 0.5, s) for s in range(4)])
    found = retention(0.9 * teacher, teacher)
    assert found.mean == pytest.approx(90)
    assert found.high - found.low < 1e-9
    assert retention(0.9 * teacher, teacher[0]).n == 600


def test_mistakes_are_named():
    with pytest.raises(UsageError, match=r"same users and seeds; got \(\(1, 2\), \(1, 3\)\)"):
        paired_test([1, 2], [1, 2, 3])
    with pytest.raises(UsageError, match="nothing to average in 'values'"):
        bootstrap_interval([])
    with pytest.raises(UsageError, match="'a' is not a finite number"):
        paired_test([np.nan], [1])
    with pytest.raises(UsageError, match=r"between 0 and 1; got 95\. Write 0.95"):
        bootstrap_interval([1, 2], level=95)
    with pytest.raises(UsageError, match=r"teacher whose mean is above 0; got 0\.0"):
        retention([1.0], [0.0])
