"""Linear-chain conditional random field: the score of a label sequence counts which label follows which (Lafferty et al. 2001).

The variant is that of Collobert et al. (2011, section 3.3.2) with scores for the first and last label::

    score(y) = start[y_1] + Σ_t emission[t, y_t] + Σ_t transition[y_{t-1}, y_t] + end[y_T]
    log P(y) = score(y) - log Σ_y' exp(score(y'))

What is not allowed has probability exactly zero, in the sum over all paths as well: the probabilities of the allowed paths sum to one.
Sums and maxima are taken in double precision, whatever the emissions come in.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import IGNORED, Padded, check_lengths
from unrolled.nn.crf_partition import FORBIDDEN, Scores, log_partition, unary_marginals
from unrolled.nn.crf_paths import best_paths, n_best_paths
from unrolled.nn.crf_rows import Rows
from unrolled.nn.crf_structure import Allowed


class BestPaths(NamedTuple):
    """What `CRF.decode` found."""

    paths: Int[Tensor, "batch time"]
    """The likeliest labels, `IGNORED` past a length."""
    scores: Float[Tensor, " batch"]
    """`score(y)` of each path; less `CRF.log_partition`, its log-probability."""


class NBestPaths(NamedTuple):
    """What `CRF.n_best` found."""

    paths: Int[Tensor, "batch n time"]
    """Distinct paths, the likeliest first; `IGNORED` past a length and where there are fewer than `n`."""
    log_probabilities: Float[Tensor, "batch n"]
    """`log P(y)`; minus infinity where there are fewer than `n`."""
    counts: Int[Tensor, " batch"]
    """How many paths each sequence has, at most `n`."""


class CRF(nn.Module):
    """A linear-chain CRF over emissions; all scores of its own begin at zero, where it is a softmax over what is allowed.

    Example:
        >>> crf = CRF(2, allowed_transitions=torch.tensor([[True, True], [False, True]]))
        >>> emissions = Padded(torch.tensor([[[0.0, 2.0], [1.0, 0.0], [9.0, 9.0]]]), torch.tensor([2]))
        >>> crf.decode(emissions).paths
        tensor([[   1,    1, -100]])
        >>> crf.n_best(emissions, 5).counts
        tensor([3])
    """

    allowed_transitions: Tensor | None
    allowed_first: Tensor | None
    allowed_last: Tensor | None

    def __init__(
        self,
        labels: int,
        *,
        allowed_transitions: Bool[Tensor, "from to"] | None = None,
        allowed_first: Bool[Tensor, " first"] | None = None,
        allowed_last: Bool[Tensor, " last"] | None = None,
    ) -> None:
        """Build a CRF.

        Args:
            labels: how many labels there are.
            allowed_transitions: whether the label of the row may be followed by that of the column; `None` allows all.
            allowed_first: whether a sequence may begin with a label; `None` allows all.
            allowed_last: whether a sequence may end with a label; `None` allows all.

        Raises:
            ConfigurationError: no label, masks of another shape, or no path of any length that is allowed.
        """
        super().__init__()
        if labels < 1:
            raise ConfigurationError(f"`labels` must be at least 1, got {labels}")
        masks = {"allowed_transitions": allowed_transitions, "allowed_first": allowed_first, "allowed_last": allowed_last}
        shapes = ((labels, labels), (labels,), (labels,))
        for (name, mask), shape in zip(masks.items(), shapes, strict=True):
            if mask is not None and mask.shape != shape:
                raise ConfigurationError(f"`{name}` must have the shape {shape} for {labels} labels, got {tuple(mask.shape)}")
        given = [torch.ones(s, dtype=torch.bool) if m is None else m for m, s in zip(masks.values(), shapes, strict=True)]
        allowed = Allowed(*given).useful()
        if not bool(allowed.first.any()):
            raise ConfigurationError(
                "`allowed_transitions` must lead from a label of `allowed_first` to one of `allowed_last`, got masks with no such path; "
                "allow at least one"
            )
        for name, mask in zip(masks, allowed, strict=True):
            self.register_buffer(name, None if bool(mask.all()) else mask.clone(), persistent=False)
        self.labels = labels
        self.mixing = allowed.mixing()
        self.every_length = self.mixing is not None and bool(allowed.possible(self.mixing + 1).all())
        self.transitions = nn.Parameter(torch.empty(labels, labels))
        self.start = nn.Parameter(torch.empty(labels))
        self.end = nn.Parameter(torch.empty(labels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All scores zero."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def extra_repr(self) -> str:
        """What `print` shows.

        Returns:
            The sizes.
        """
        forbidden = 0 if self.allowed_transitions is None else int((~self.allowed_transitions).sum())
        return f"{self.labels}, forbidden_transitions={forbidden}"

    def log_likelihood(self, emissions: Padded, labels: Int[Tensor, "batch time"]) -> Float[Tensor, " batch"]:
        """`log P(y)` of given labels; differentiable.

        Args:
            emissions: `[batch, time, labels]`.
            labels: the right labels; what stands past a length is not looked at.

        Returns:
            In nats, 0 for a sequence of length 0.

        Raises:
            DataError: emissions, lengths or labels that do not fit, or labels that are not allowed.
        """
        rows = self._rows(emissions)
        if labels.shape != emissions.data.shape[:2]:
            raise DataError(f"`labels` must have the shape of the emissions, {tuple(emissions.data.shape[:2])}, got {tuple(labels.shape)}")
        with torch.autocast(emissions.data.device.type, enabled=False):
            scores = self._scores(emissions.data)
            path = self._path_scores(emissions.data, labels, rows, scores)
            return self._by_batch(path - log_partition(emissions.data, rows, scores, self.mixing), rows, emissions)

    def log_partition(self, emissions: Padded) -> Float[Tensor, " batch"]:
        """`log Z = log Σ_y exp(score(y))` over all allowed paths; differentiable.

        Args:
            emissions: `[batch, time, labels]`.

        Returns:
            In nats, 0 for a sequence of length 0.
        """
        rows = self._rows(emissions)
        with torch.autocast(emissions.data.device.type, enabled=False):
            found = log_partition(emissions.data, rows, self._scores(emissions.data), self.mixing)
            return self._by_batch(found, rows, emissions)

    def marginals(self, emissions: Padded) -> Float[Tensor, "batch time labels"]:
        """`P(y_t = k)`; differentiable where the emissions ask for a gradient, and several times as fast where they do not.

        Args:
            emissions: `[batch, time, labels]`.

        Returns:
            Probabilities that sum to one at each step, zero past a length.
        """
        rows = self._rows(emissions)
        with torch.autocast(emissions.data.device.type, enabled=False):
            found = unary_marginals(emissions.data, rows, self._scores(emissions.data), self.mixing)
            return rows.put(found.to(_result_type(emissions.data)), emissions.data)

    @torch.no_grad()
    def decode(self, emissions: Padded) -> BestPaths:
        """The likeliest path of each sequence (Viterbi).

        Args:
            emissions: `[batch, time, labels]`.

        Returns:
            Paths and their scores; a sequence of length 0 has the empty path with score 0.
        """
        rows, data = self._rows(emissions), emissions.data
        if not rows.sizes:
            return BestPaths(data.new_full(data.shape[:2], IGNORED, dtype=torch.long), data.new_zeros(len(data), dtype=_result_type(data)))
        scores = self._scores(data)
        labels, best = best_paths(rows.take(data).to(scores.start.dtype), rows, scores)
        return BestPaths(rows.put(labels, data, IGNORED), self._by_batch(best, rows, emissions))

    @torch.no_grad()
    def n_best(self, emissions: Padded, n: int) -> NBestPaths:
        """The n likeliest paths of each sequence, exactly.

        Args:
            emissions: `[batch, time, labels]`.
            n: how many; the time taken grows with it.

        Returns:
            Distinct paths, the likeliest first; a sequence of length 0 has the empty path alone.

        Raises:
            ConfigurationError: `n` below 1.
        """
        if n < 1:
            raise ConfigurationError(f"`n` must be at least 1, got {n}")
        rows, data = self._rows(emissions), emissions.data
        batch, time = data.shape[:2]
        paths = torch.full((batch, time, n), IGNORED, device=data.device)
        # The empty path of those that have no step.
        logs = torch.full((batch, n), -torch.inf, dtype=_result_type(data), device=data.device)
        logs[:, 0] = 0
        if rows.sizes:
            scores = self._scores(data)
            labels, best = n_best_paths(rows.take(data).to(scores.start.dtype), rows, scores, n)
            there = best > FORBIDDEN / 2
            total = log_partition(data, rows, scores, self.mixing).unsqueeze(1)
            logs[rows.order] = (best - total).clamp(max=0).masked_fill(~there, -torch.inf).to(logs.dtype)
            paths = rows.put(labels.masked_fill(~there[rows.owner], IGNORED), data, IGNORED)
        return NBestPaths(paths.transpose(1, 2), logs, logs.isfinite().sum(1))

    def _scores(self, data: Tensor) -> Scores:
        """The parameters in the precision of the sums, with what is forbidden; double wherever the device has it."""
        dtype = torch.float32 if data.device.type == "mps" else torch.float64
        masks = (self.allowed_transitions, self.allowed_first, self.allowed_last)
        return Scores(
            *(
                score.to(dtype) if mask is None else score.to(dtype).masked_fill(~mask, FORBIDDEN)
                for score, mask in zip((self.transitions, self.start, self.end), masks, strict=True)
            )
        )

    def _rows(self, emissions: Padded) -> Rows:
        """What must hold of every input, and its layout."""
        data, lengths = emissions
        if data.ndim != 3 or data.shape[2] != self.labels or not data.is_floating_point():
            raise DataError(f"`emissions` must be numbers [batch, time, {self.labels}], got {data.dtype} of shape {tuple(data.shape)}")
        check_lengths(lengths, *data.shape[:2])
        if not self.every_length and len(lengths):
            possible = self._allowed().possible(int(lengths.max()))[lengths]
            if not bool(possible.all()):
                row = int(possible.int().argmin())
                raise DataError(
                    f"every sequence must have a path that is allowed, got row {row} of length {int(lengths[row])}, which has none; "
                    "allow more transitions, first or last labels, or leave the sequence out"
                )
        return Rows.of(lengths, data.shape[1])

    def _allowed(self) -> Allowed:
        """The masks, where there are none as well."""
        masks = (self.allowed_transitions, self.allowed_first, self.allowed_last)
        parameters = (self.transitions, self.start, self.end)
        return Allowed(*(torch.ones_like(p, dtype=torch.bool) if m is None else m for m, p in zip(masks, parameters, strict=True)))

    def _path_scores(self, emissions: Tensor, labels: Tensor, rows: Rows, scores: Scores) -> Float[Tensor, " sequences"]:
        """`score(y)`."""
        path = rows.take(labels).long()
        if len(path) and (int(path.min()) < 0 or int(path.max()) >= self.labels):
            raise DataError(f"`labels` must lie in 0..{self.labels - 1} within the lengths, got {int(path.min())}..{int(path.max())}")
        sequences = len(rows.order)
        from_emissions = emissions.flatten().index_select(0, rows.place * self.labels + path).to(scores.start.dtype)
        pairs = path.index_select(0, rows.before) * self.labels + path[sequences:]
        ends = scores.start.index_select(0, path[:sequences]) + scores.end.index_select(0, path.index_select(0, rows.last))
        found = ends.index_add(0, rows.owner, from_emissions)
        found = found.index_add(0, rows.owner[sequences:], scores.transitions.flatten().index_select(0, pairs))
        if bool((found < FORBIDDEN / 2).any()):
            row = int(rows.order[(found < FORBIDDEN / 2).int().argmax()])
            raise DataError(f"`labels` must be a path that is allowed, got {self._fault(labels, rows, row)}; mend the labels or allow it")
        return found

    def _fault(self, labels: Tensor, rows: Rows, row: int) -> str:
        """Where a path does what is forbidden, in words."""
        path = labels[row, : int(rows.lengths[rows.order == row])].tolist()
        transitions, first, _ = self._allowed()
        for step, (before, after) in enumerate(pairwise(path)):
            if not transitions[before, after]:
                return f"label {after} after label {before} at step {step + 1} of row {row}"
        if not first[path[0]]:
            return f"row {row}, which begins with label {path[0]}"
        return f"row {row}, which ends with label {path[-1]}"

    def _by_batch(self, found: Tensor, rows: Rows, emissions: Padded) -> Float[Tensor, " batch"]:
        """Results in the order of the batch, 0 where a sequence has no step."""
        data = emissions.data
        return found.new_zeros(len(data)).index_copy(0, rows.order, found).to(_result_type(data))


def _result_type(data: Tensor) -> torch.dtype:
    """At least single precision."""
    return torch.promote_types(data.dtype, torch.float32)
