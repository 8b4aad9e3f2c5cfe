"""Clipping reports the root, schedules have their shape, averages are averages."""

import math

import pytest
import torch
from torch import nn

from unrolled.train.checkpoint import optimizer_tensors, restore_optimizer
from unrolled.train.optimizers import Average, LazyAdamW, Thawing, build_optimizer, clip
from unrolled.train.schedule import count_plateaus, rate_share
from unrolled.train.settings import OptimizerSettings, ScheduleSettings, TrainSettings


def with_gradients(*values: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(v))) for v in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


def test_the_norm_is_the_root_not_the_square() -> None:
    parameters = with_gradients([3.0, 0.0], [0.0, 4.0])
    norm, largest = clip(parameters, TrainSettings(clip_norm=1.0))
    assert norm.item() == pytest.approx(5.0) and largest.item() == 4.0  # the sum of squares would be 25
    assert torch.cat([p.grad for p in parameters]).tolist() == pytest.approx([0.6, 0.0, 0.0, 0.8], abs=1e-6)


def test_a_small_gradient_is_left_alone() -> None:
    parameters = with_gradients([0.3, 0.4])
    clip(parameters, TrainSettings(clip_norm=1.0, clip_value=0.5))
    assert parameters[0].grad.tolist() == pytest.approx([0.3, 0.4])


def test_by_value_then_by_norm() -> None:
    parameters = with_gradients([3.0, -4.0])
    norm, _ = clip(parameters, TrainSettings(clip_norm=1.0, clip_value=2.0))
    assert norm.item() == pytest.approx(5.0)
    assert parameters[0].grad.tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)], abs=1e-6)


def test_no_limit_no_change() -> None:
    parameters = with_gradients([30.0, -40.0])
    clip(parameters, TrainSettings(clip_norm=None))
    assert parameters[0].grad.tolist() == [30.0, -40.0]


def test_clipping_agrees_with_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = (with_gradients(torch.randn(50, generator=torch.Generator().manual_seed(1)).tolist()) for _ in range(2))
    clip(ours, TrainSettings(clip_norm=0.7))
    torch.nn.utils.clip_grad_norm_(theirs, 0.7)
    torch.testing.assert_close(ours[0].grad, theirs[0].grad)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "asgd"])
def test_every_optimizer_falls(name: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)
    optimizer = build_optimizer(layer, OptimizerSettings(name=name, learning_rate=0.05))
    x = torch.randn(20, 3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (layer(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_weight_decay_spares_biases() -> None:
    groups = build_optimizer(nn.Linear(3, 1), OptimizerSettings(weight_decay=0.1)).param_groups
    assert [(g["weight_decay"], g["params"][0].dim()) for g in groups] == [(0.1, 2), (0.0, 1)]


def test_cosine_rises_then_falls_to_its_floor() -> None:
    schedule = ScheduleSettings(name="cosine", warmup_steps=9, final_share=0.1)
    assert rate_share(schedule, 0, 0.0, 0) == pytest.approx(0.1)
    assert rate_share(schedule, 9, 0.0, 0) == pytest.approx(1.0)
    assert rate_share(schedule, 99, 0.5, 0) == pytest.approx(0.55)
    assert rate_share(schedule, 99, 1.0, 0) == pytest.approx(0.1)
    assert rate_share(schedule, 99, 1.3, 0) == pytest.approx(0.1)


def test_linear_constant_plateau() -> None:
    assert rate_share(ScheduleSettings(name="linear", warmup_steps=0, final_share=0.0), 5, 0.25, 0) == pytest.approx(0.75)
    assert rate_share(ScheduleSettings(name="constant", warmup_steps=0), 5, 0.9, 3) == 1.0


def test_a_short_training_warms_up_in_its_first_tenth() -> None:
    short = ScheduleSettings(name="linear", warmup_steps=99, final_share=0.0)
    assert rate_share(short, 0, 0.05, 0) == pytest.approx(0.5 * 0.95)
    assert rate_share(short, 1, 0.1, 0) == pytest.approx(0.9)
    assert rate_share(ScheduleSettings(name="constant", warmup_steps=99), 0, 0.05, 0) == pytest.approx(0.01)
    assert rate_share(ScheduleSettings(name="plateau", warmup_steps=0, factor=0.5), 5, 0.9, 3) == 0.125


def test_plateaus_are_counted() -> None:
    assert count_plateaus([3, 2, 1], 1) == 0
    assert count_plateaus([3, 3, 2, 2, 2], 1) == 3
    assert count_plateaus([3, 3, 2, 2, 2], 2) == 1


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.999])
def test_the_exponential_average_is_one(decay: float) -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = Average(layer, TrainSettings(average=decay))
    expected = layer.weight.item()
    for n in range(1, 41):
        layer.weight.data.fill_(n)
        average.update()
        kept = min(decay, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * n
    assert average.module.weight.item() == pytest.approx(expected)


def test_averaged_sgd_begins_when_the_paper_says() -> None:
    """Merity et al. 2018, algorithm 1, with n = 5, on losses that wander down and then up."""
    losses = [9.0, 7.0, 8.0, 6.0, 6.5, 5.0, 5.2, 5.1, 5.3, 5.0, 5.4, 5.2, 5.6, 4.9, 5.7, 5.8]
    logs: list[float] = []
    expected = None
    for t, value in enumerate(losses):
        if t > 5 and value > min(logs[: t - 5]):
            expected = t
            break
        logs.append(value)
    average = Average(nn.Linear(1, 1), TrainSettings(optimizer=OptimizerSettings(name="asgd")))
    for t in range(len(losses)):
        average.after_evaluation(losses[: t + 1])
        if average.model is not None:
            assert t == expected
            return
    pytest.fail("never began")


def test_averaged_sgd_waits_until_the_loss_stops_falling() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = Average(layer, TrainSettings(optimizer=OptimizerSettings(name="asgd")))
    average.after_evaluation([6, 5, 4, 3, 2, 1, 0.5])
    assert average.module is layer
    nn.init.constant_(layer.weight, 1.0)
    average.after_evaluation([1, 2, 2, 2, 2, 2, 2])
    for value in (2.0, 3.0):
        nn.init.constant_(layer.weight, value)
        average.update()
    assert average.module.weight.item() == pytest.approx(2.0)  # the mean of 1, 2, 3


def two_tables() -> tuple[nn.Parameter, nn.Parameter]:
    start = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return nn.Parameter(start.clone()), nn.Parameter(start.clone())


def test_lazy_adamw_is_adamw_where_every_row_has_a_gradient() -> None:
    lazy, plain = two_tables()
    ours = LazyAdamW([lazy], lr=0.1, betas=(0.9, 0.99), weight_decay=0.1)
    theirs = torch.optim.AdamW([plain], lr=0.1, betas=(0.9, 0.99), weight_decay=0.1)
    for seed in range(5):
        plain.grad = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        lazy.grad = plain.grad.to_sparse(1)
        ours.step()
        theirs.step()
    torch.testing.assert_close(lazy, plain)


def test_lazy_adamw_leaves_other_rows_alone() -> None:
    """As `torch.optim.SparseAdam`, which knows no weight decay, does."""
    lazy, plain = two_tables()
    before = lazy.detach().clone()
    ours = LazyAdamW([lazy], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    theirs = torch.optim.SparseAdam([plain], lr=0.1, betas=(0.9, 0.99))
    for rows in ([0, 2, 0], [2], [5, 5]):
        values = torch.randn(len(rows), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(rows)))
        for table, optimizer in ((lazy, ours), (plain, theirs)):
            table.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, (7, 3))
            optimizer.step()
    torch.testing.assert_close(lazy, plain)
    assert torch.equal(lazy[[1, 3, 4, 6]], before[[1, 3, 4, 6]]) and not torch.equal(lazy[5], before[5])


def test_lazy_adamw_goes_on_where_it_stood() -> None:
    one, other = two_tables()
    first, second = (LazyAdamW([table], lr=0.1) for table in (one, other))
    gradient = torch.ones(7, 3, dtype=torch.float64).to_sparse(1)
    for table, optimizer in ((one, first), (other, second)):
        table.grad = gradient
        optimizer.step()
    again = LazyAdamW([other], lr=0.1)
    restore_optimizer(again, optimizer_tensors(second))
    for table, optimizer in ((one, first), (other, again)):
        table.grad = gradient
        optimizer.step()
    assert torch.equal(one, other)


def test_sparse_gradients_are_clipped_as_dense_ones() -> None:
    sparse, dense = two_tables()
    rows, values = torch.tensor([[4, 1, 4]]), torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 5
    sparse.grad = torch.sparse_coo_tensor(rows, values, (7, 3))
    dense.grad = sparse.grad.to_dense()
    found = [clip([table], TrainSettings(clip_norm=0.7, clip_value=4.0)) for table in (sparse, dense)]
    assert [x.item() for x in found[0]] == pytest.approx([x.item() for x in found[1]])
    torch.testing.assert_close(sparse.grad.to_dense(), dense.grad)


def test_deeper_layers_are_slower_and_thaw_later() -> None:
    thawing = Thawing({"readout": 0, "upper": 1, "lower": 2}, layer_rate=0.5, unfreeze=0.8)
    assert [thawing.share(depth, 0.0) for depth in range(3)] == [1, 0, 0]
    assert [thawing.share(depth, 0.5) for depth in range(3)] == [1, 0.5, 0]  # the upper one begins at 0.4
    assert [thawing.share(depth, 0.8) for depth in range(3)] == [1, 0.5, 0.25]


def test_every_depth_has_a_group_of_its_own() -> None:
    model = nn.ModuleDict({"lower": nn.Linear(2, 3), "readout": nn.Linear(3, 1)})
    depths = {name: int(name.startswith("lower")) for name, _ in model.named_parameters()}
    groups = build_optimizer(model, OptimizerSettings(weight_decay=0.1), Thawing(depths)).param_groups
    assert [(g["depth"], g["weight_decay"], [tuple(p.shape) for p in g["params"]]) for g in groups] == [
        (0, 0.1, [(1, 3)]),
        (0, 0.0, [(1,)]),
        (1, 0.1, [(3, 2)]),
        (1, 0.0, [(3,)]),
    ]
