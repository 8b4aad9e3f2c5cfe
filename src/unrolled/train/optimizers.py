"""Optimisers from the configuration, clipping, and weight averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

from unrolled.train.settings import OptimizerSettings, TrainSettings

Groups = list[dict[str, Any]]


class LazyAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter 2019) that leaves alone what a sparse gradient does not mention.

    Rows of a table without a gradient keep their moments and are not decayed, as in `torch.optim.SparseAdam`; dense gradients
    are torch's own business. A batch sees few words of a large vocabulary, and only those cost time.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update.

        Args:
            closure: must be `None`; there only for the signature of torch.
        """
        sparse = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None and p.grad.is_sparse]
        gradients = [p.grad.coalesce() for p, _ in sparse]
        for p, _ in sparse:
            p.grad = None
        super().step(closure)
        for (p, group), gradient in zip(sparse, gradients, strict=True):
            self._update_rows(p, gradient.indices()[0], gradient.values(), group)
            p.grad = gradient

    def _update_rows(self, table: Tensor, rows: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        memory, (beta1, beta2) = self.state[table], group["betas"]
        if not memory:
            memory["step"] = torch.zeros((), dtype=torch.float32)
            memory["exp_avg"], memory["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        memory["step"] += 1
        step = float(memory["step"])
        first = torch.lerp(memory["exp_avg"][rows], gradient, 1 - beta1)
        second = torch.lerp(memory["exp_avg_sq"][rows], gradient.square(), 1 - beta2)
        memory["exp_avg"].index_copy_(0, rows, first)
        memory["exp_avg_sq"].index_copy_(0, rows, second)
        scale = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        change = first.div_(scale).mul_(-group["lr"] / (1 - beta1**step))
        if group["weight_decay"]:
            change -= group["lr"] * group["weight_decay"] * table[rows]
        table.index_add_(0, rows, change)


def _adamw(groups: Groups, settings: OptimizerSettings) -> torch.optim.Optimizer:
    return LazyAdamW(groups, settings.learning_rate, settings.betas, fused=True)


def _adam(groups: Groups, settings: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, settings.learning_rate, settings.betas, fused=True)


def _sgd(groups: Groups, settings: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, settings.learning_rate, settings.momentum, fused=True)


OPTIMIZERS: dict[str, Callable[[Groups, OptimizerSettings], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "sgd": _sgd,
    "asgd": _sgd,  # the average is kept apart, by `Average`
}


class Thawing(NamedTuple):
    """Slower rates for deeper layers, which may also be left as they are for a while (Howard & Ruder 2018, sections 3.2 and 3.3)."""

    depths: dict[str, int]
    """Of every parameter by its name: 0 for what reads out, more for each layer below."""
    layer_rate: float = 1.0
    """The rate of a layer as a share of that of the layer above."""
    unfreeze: float = 0.0
    """The share of the training after which even the deepest layer is trained; those above begin evenly before."""

    def share(self, depth: int, done: float) -> float:
        """What a learning rate is multiplied by.

        Args:
            depth: of a parameter.
            done: share of the training.

        Returns:
            0 for a layer whose time has not come.
        """
        deepest = max(self.depths.values(), default=0)
        return self.layer_rate**depth if done * max(deepest, 1) >= self.unfreeze * depth else 0.0


def build_optimizer(module: nn.Module, settings: OptimizerSettings, thawing: Thawing | None = None) -> torch.optim.Optimizer:
    """The optimiser of the configuration; weight decay reaches weights of two and more axes only.

    Args:
        module: whose parameters are trained.
        settings: which optimiser and its rates.
        thawing: layers with rates of their own.

    Returns:
        A torch optimiser with two groups, or two for each depth, which is then written into them.
    """
    groups: Groups = []
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    for depth in sorted({0 if thawing is None else thawing.depths[name] for name, _ in named}):
        here = [p for name, p in named if thawing is None or thawing.depths[name] == depth]
        matrices, vectors = [p for p in here if p.dim() > 1], [p for p in here if p.dim() <= 1]
        groups.append({"params": matrices, "weight_decay": settings.weight_decay, "depth": depth})
        groups.append({"params": vectors, "weight_decay": 0.0, "depth": depth})
    return OPTIMIZERS[settings.name]([g for g in groups if g["params"]], settings)


def clip(parameters: Iterable[Tensor], settings: TrainSettings) -> tuple[Tensor, Tensor]:
    """Clip gradients in place by value, then by global norm `√Σ g²` (the root, not the sum of squares).

    Args:
        parameters: whose gradients are clipped.
        settings: the two limits, either of which may be absent.

    Returns:
        The norm and the largest entry as they were before any clipping.
    """
    gradients = [numbers_of(p) for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    # The norm to infinity takes several times as long.
    largest = torch.stack([end for g in gradients for end in torch.aminmax(g)]).abs().max()
    clipped_norm = norm
    if settings.clip_value is not None and largest > settings.clip_value:
        torch._foreach_clamp_min_(gradients, -settings.clip_value)
        torch._foreach_clamp_max_(gradients, settings.clip_value)
        clipped_norm = torch.nn.utils.get_total_norm(gradients)
    if settings.clip_norm is not None:
        torch._foreach_mul_(gradients, (settings.clip_norm / (clipped_norm + 1e-6)).clamp(max=1.0))
    return norm, largest


def numbers_of(parameter: Tensor) -> Tensor:
    """The numbers of a gradient that are there; changing them changes the gradient.

    Args:
        parameter: with a gradient, dense or sparse (which then has each row once).

    Returns:
        A tensor of any shape.
    """
    gradient = parameter.grad
    assert gradient is not None
    if not gradient.is_sparse:
        return gradient
    parameter.grad = gradient.coalesce()
    return parameter.grad.values()


def exponential(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """A moving average that forgets the first weights soon: its decay after n updates is `min(decay, (1 + n) / (10 + n))`.

    Args:
        decay: the share that is kept at each update in the long run.

    Returns:
        What `AveragedModel` calls with the averages, the weights, and how often it was called.
    """

    @torch.no_grad()
    def update(averages: Any, weights: Any, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return update


class Average:
    """An average of the weights over training, evaluated in their place once it has begun.

    Either exponential from the first update, or (averaged SGD; Merity et al. 2018, algorithm 1) the plain mean from the
    evaluation whose loss is above the least of all but the last `trigger` ones before it.
    """

    def __init__(self, module: nn.Module, settings: TrainSettings) -> None:
        self.source = module
        self.plain_mean = settings.optimizer.name == "asgd"
        self.wanted = self.plain_mean or settings.average is not None
        function = get_swa_multi_avg_fn() if self.plain_mean else exponential(settings.average or 0.0)
        self.function, self.trigger = function, 5
        self.model: AveragedModel | None = None
        if self.wanted and not self.plain_mean:
            self.begin()

    def begin(self) -> None:
        """Start averaging with the weights as they are."""
        self.model = AveragedModel(self.source, multi_avg_fn=self.function)
        self.model.update_parameters(self.source)

    def update(self) -> None:
        """Take the weights after an update into the average."""
        if self.model is not None:
            self.model.update_parameters(self.source)

    def after_evaluation(self, losses: list[float]) -> None:
        """Begin the plain mean when the loss has stopped falling.

        Args:
            losses: validation losses so far, the newest last.
        """
        *before, last = losses
        if self.plain_mean and self.model is None and len(before) > self.trigger and last > min(before[: -self.trigger]):
            self.begin()

    @property
    def module(self) -> nn.Module:
        """The module to evaluate: the average, or the trained one before it has begun."""
        return self.source if self.model is None else self.model.module
