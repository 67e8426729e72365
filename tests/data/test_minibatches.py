"""The order of training: `aevb.data.Minibatches`."""

import pytest
import torch

from aevb.data import Minibatches

CASES = [(10, 4), (12, 4), (7, 7), (5, 1)]


def _epoch(batches: Minibatches) -> list[torch.Tensor]:
    return [batches.next_indices() for _ in range(batches.num_batches)]


@pytest.mark.parametrize(("num_datapoints", "batch_size"), CASES)
def test_each_epoch_presents_every_datapoint_once(num_datapoints: int, batch_size: int) -> None:
    batches = Minibatches(num_datapoints, batch_size, seed=0)
    for _ in range(3):
        order = torch.cat(_epoch(batches))
        assert order.dtype == torch.int64
        assert torch.equal(order.sort().values, torch.arange(num_datapoints))


def test_only_the_last_batch_of_an_epoch_is_short() -> None:
    batches = Minibatches(10, 4, seed=0)
    assert [len(batch) for _ in range(2) for batch in _epoch(batches)] == [4, 4, 2, 4, 4, 2]


@pytest.mark.parametrize(("num_datapoints", "batch_size"), CASES)
def test_epoch_and_position_count_what_was_presented(num_datapoints: int, batch_size: int) -> None:
    batches = Minibatches(num_datapoints, batch_size, seed=0)
    for presented in range(3 * batches.num_batches):
        epoch, step = divmod(presented, batches.num_batches)
        assert (batches.epoch, batches.position) == (epoch, step * batch_size)
        batches.next_indices()
    assert (batches.epoch, batches.position) == (3, 0)


def test_epoch_order_is_what_the_batches_of_the_epoch_present() -> None:
    batches = Minibatches(10, 4, seed=0)
    for _ in range(3):
        order = batches.epoch_order()
        first = batches.next_indices()
        assert torch.equal(batches.epoch_order(), order)
        second_and_third = [batches.next_indices(), batches.next_indices()]
        assert torch.equal(torch.cat([first, *second_and_third]), order)


def test_each_epoch_has_a_fresh_permutation() -> None:
    batches = Minibatches(1000, 1000, seed=0)
    assert not torch.equal(batches.next_indices(), batches.next_indices())


def test_order_follows_the_seed_and_not_the_global_generator() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = torch.cat(_epoch(Minibatches(1000, 10, seed=3)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(torch.cat(_epoch(Minibatches(1000, 10, seed=3))), first)
    assert not torch.equal(torch.cat(_epoch(Minibatches(1000, 10, seed=4))), first)


def test_changing_what_was_returned_does_not_change_the_order() -> None:
    batches, untouched = Minibatches(10, 4, seed=0), Minibatches(10, 4, seed=0)
    state = batches.state_dict()
    batches.epoch_order().zero_()
    order = state["order"]
    assert isinstance(order, torch.Tensor)
    order.zero_()
    batches.next_indices().zero_()
    untouched.next_indices()
    assert torch.equal(batches.epoch_order(), untouched.epoch_order())


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 6, 7])
def test_resumed_order_is_the_uninterrupted_one(steps: int) -> None:
    batches = Minibatches(10, 4, seed=0)
    for _ in range(steps):
        batches.next_indices()
    state = batches.state_dict()
    expected = [batches.next_indices() for _ in range(9)]

    resumed = Minibatches(10, 4, seed=1)
    resumed.next_indices()
    resumed.load_state_dict(state)
    assert (resumed.epoch, resumed.position) == (state["epoch"], state["position"])
    for indices in expected:
        assert torch.equal(resumed.next_indices(), indices)
    assert (resumed.epoch, resumed.position) == (batches.epoch, batches.position)


def test_state_survives_integers_turned_into_tensors() -> None:
    batches, resumed = Minibatches(10, 4, seed=0), Minibatches(10, 4, seed=1)
    batches.next_indices()
    state = {name: torch.as_tensor(value) for name, value in batches.state_dict().items()}
    resumed.load_state_dict({**state})
    assert torch.equal(resumed.next_indices(), batches.next_indices())


def test_repr_is_one_line() -> None:
    expected = "Minibatches(num_datapoints=10, batch_size=4, epoch=0, position=0)"
    assert repr(Minibatches(10, 4, seed=0)) == expected


@pytest.mark.parametrize("batch_size", [-1, 0, 11])
def test_impossible_batch_size_is_an_error(batch_size: int) -> None:
    with pytest.raises(ValueError, match=rf"batch_size: {batch_size}; expected 1\.\.10"):
        Minibatches(10, batch_size, seed=0)


def test_no_datapoints_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_datapoints: 0; expected at least 1"):
        Minibatches(0, 1, seed=0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Minibatches(11, 4, seed=0), "state: num_datapoints 11; expected 10"),
        (Minibatches(10, 5, seed=0), "state: batch_size 5; expected 4"),
    ],
)
def test_state_of_another_run_is_an_error(other: Minibatches, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Minibatches(10, 4, seed=0).load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"order": torch.zeros(10, dtype=torch.int64)}, r"expected a permutation of 0\.\.9"),
        ({"order": torch.arange(10)[None]}, r"order of shape \(1, 10\)"),
        ({"position": 3}, "position 3 and epoch 0; expected a multiple of 4 below 10"),
        ({"position": 12}, "position 12 and epoch 0"),
        ({"epoch": -1}, "epoch -1"),
        ({"generator": torch.zeros(3, dtype=torch.uint8)}, "damaged generator"),
        ({"generator": torch.zeros(3)}, "damaged generator"),
    ],
)
def test_damaged_state_is_an_error_that_changes_nothing(
    damage: dict[str, torch.Tensor | int], message: str
) -> None:
    batches, untouched = Minibatches(10, 4, seed=0), Minibatches(10, 4, seed=0)
    with pytest.raises(ValueError, match=message):
        batches.load_state_dict({**Minibatches(10, 4, seed=1).state_dict(), **damage})
    for _ in range(6):
        assert torch.equal(batches.next_indices(), untouched.next_indices())


def test_incomplete_state_is_an_error() -> None:
    state = Minibatches(10, 4, seed=0).state_dict()
    del state["generator"], state["epoch"]
    with pytest.raises(ValueError, match="state: lacks epoch, generator; expected a state_dict"):
        Minibatches(10, 4, seed=0).load_state_dict(state)
