import json
import math

import pytest

from condvae.training.config import TrainingConfig
from condvae.training.guard import MAX_NON_FINITE, TrainingDivergedError, UpdateGuard


def guard(rule="adaptive", threshold=10.0, max_skips=10, max_restarts=0):
    return UpdateGuard(
        TrainingConfig(
            skip_rule=rule,
            skip_threshold=threshold,
            max_skips=max_skips,
            max_restarts=max_restarts,
        )
    )


def steps_to_explosion(rule, norm, most=300):
    """How many steps of one norm it takes until the guard gives up; None = it never does."""
    for step in range(1, most + 1):
        try:
            rule.take(norm)
        except TrainingDivergedError:
            return step
    return None


def test_published_rule_alone_would_freeze_for_ever_but_the_guard_does_not():
    norms = [500.0] * 1000  # for good above the threshold of 400
    published_alone = [norm < 400.0 for norm in norms]
    assert not any(published_alone)
    rule = guard("published", 400.0, max_skips=4)
    taken = [rule.take(norm) for norm in norms]
    assert taken == [i % 5 == 4 for i in range(1000)]
    assert rule.skipped == 800


def test_published_rule_compares_with_the_constant():
    rule = guard("published", 400.0)
    assert [rule.take(n) for n in (399.0, 400.0, 400.1, 1.0)] == [True, True, False, True]


def test_skips_that_are_not_in_a_row_do_not_add_up():
    rule = guard("published", 400.0, max_skips=2)
    taken = [rule.take(n) for n in (500.0, 500.0, 1.0, 500.0, 500.0, 500.0)]
    assert taken == [False, False, True, False, False, True]


def test_adaptive_rule_skips_a_spike_and_goes_on():
    rule = guard("adaptive", 10.0)
    assert all(rule.take(1.0) for _ in range(30))
    assert not rule.take(10.1)
    assert rule.take(9.9)
    assert all(rule.take(1.0) for _ in range(30))
    assert rule.skipped == 1


def test_adaptive_rule_waits_until_it_knows_what_is_usual():
    rule = guard("adaptive", 10.0)
    assert all(rule.take(norm) for norm in [1.0] * 19 + [1e6])
    assert not rule.take(1e6)


def test_adaptive_rule_recovers_after_a_level_shift():
    rule = guard("adaptive", 10.0, max_skips=10)
    for _ in range(150):
        rule.take(1.0)
    after = [rule.take(100.0) for _ in range(100)]
    assert not any(after[:10])  # a spike, as far as the rule can know
    assert after[10]  # no more than ten in a row are left out
    assert all(after[51:])  # half of the window has the new level: it is the usual one
    assert sum(after[:51]) >= 4


def test_no_rule_takes_everything_finite():
    rule = guard("none")
    assert all(rule.take(norm) for norm in [1.0] * 50 + [1e30] * 20)


@pytest.mark.parametrize("rule", ["adaptive", "published", "none"])
@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_non_finite_gradients_are_always_left_out(rule, norm):
    checked = guard(rule, max_skips=1)
    assert not any(checked.take(norm) for _ in range(5))
    assert checked.take(1.0)
    assert checked.skipped == 5


def test_non_finite_norms_do_not_spoil_the_median():
    rule = guard("adaptive", 10.0)
    for _ in range(30):
        rule.take(1.0)
        rule.take(math.nan)
    assert rule.take(9.0)
    assert not rule.take(11.0)


def test_many_non_finite_steps_in_a_row_end_training():
    rule = guard()
    for _ in range(MAX_NON_FINITE - 1):
        rule.take(math.nan)
    rule.take(1.0)  # one good step: the count starts again
    for _ in range(MAX_NON_FINITE - 1):
        rule.take(math.nan)
    with pytest.raises(TrainingDivergedError, match=r"not finite in 50 steps.*learning_rate"):
        rule.take(math.nan)


@pytest.mark.parametrize(
    ("before", "norm", "expected"),
    [
        (100, 201.0, 51),  # more than half of the last hundred
        (20, 201.0, 21),  # more than half of all there are
        (100, 199.0, None),
    ],
)
def test_norms_of_a_hundred_times_the_last_checkpoint_end_training(before, norm, expected):
    rule = guard("none", max_restarts=1)
    for _ in range(before):
        rule.take(2.0)
    rule.mark_checkpoint()
    assert steps_to_explosion(rule, norm) == expected
    if expected is not None:
        with pytest.raises(
            TrainingDivergedError,
            match="is 201, at the last checkpoint it was 2: lower learning_rate",
        ):
            rule.take(norm)


def test_explosion_is_relative_to_the_last_checkpoint_and_needs_one():
    unmarked = guard("none", max_restarts=1)
    few = guard("none", max_restarts=1)
    for rule in (unmarked, few):
        for _ in range(19):
            rule.take(2.0)
    few.mark_checkpoint()  # too few norms to tell what is usual
    assert steps_to_explosion(unmarked, 1e6) is None
    assert steps_to_explosion(few, 1e6) is None
    unmarked.mark_checkpoint()
    assert steps_to_explosion(unmarked, 0.9e8) is None


def test_without_restarts_norms_may_rise_as_they_like():
    rule = guard("none")
    for _ in range(100):
        rule.take(2.0)
    rule.mark_checkpoint()
    assert steps_to_explosion(rule, 1e9) is None


def test_restored_guard_knows_the_norms_at_its_checkpoint():
    whole, resumed = (guard("none", max_restarts=1) for _ in range(2))
    for norm in [1.0] * 30 + [2.0] * 70:
        whole.take(norm)
    whole.mark_checkpoint()
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert resumed.usual_norm == whole.usual_norm == 2.0
    assert steps_to_explosion(resumed, 300.0) == steps_to_explosion(whole, 300.0)


def test_calm_is_a_guard_that_took_the_last_update():
    rule, without = guard(max_restarts=1), guard()
    for checked in (rule, without):
        for _ in range(30):
            checked.take(1.0)
    calm = []
    for norm in (1.0, 50.0, 1.0, math.nan, 1.0):
        rule.take(norm)
        without.take(norm)
        calm.append(rule.is_calm)
        assert without.is_calm
    assert calm == [True, False, True, False, True]


def test_guard_that_starts_again_counts_anew():
    rule = guard(max_restarts=1)
    for _ in range(MAX_NON_FINITE - 1):
        rule.take(math.nan)
    rule.start_again()
    assert rule.is_calm
    for _ in range(MAX_NON_FINITE - 1):
        rule.take(math.nan)
    assert rule.skipped == 2 * (MAX_NON_FINITE - 1)
    with pytest.raises(TrainingDivergedError):
        rule.take(math.nan)


def test_state_round_trip_through_json_decides_the_same():
    norms = [1.0, 2.0, 300.0, math.nan, 1.5] * 30 + [80.0] * 40
    whole, first = guard(max_skips=3), guard(max_skips=3)
    expected = [whole.take(n) for n in norms]
    taken = [first.take(n) for n in norms[:77]]
    second = guard(max_skips=3)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    taken += [second.take(n) for n in norms[77:]]
    assert taken == expected
    assert not all(expected)
    assert second.state_dict() == whole.state_dict()
