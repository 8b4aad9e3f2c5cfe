"""The forms of state trees: taken once, checked at every call of what was made for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor

from unrolled.core.state import State


@dataclass(frozen=True)
class Form:
    """What a tree is without its tensors."""

    kind: type
    """`Tensor`, `NoneType`, `dict`, or the type of a tuple."""
    names: tuple[str, ...] = ()
    """Of the parts of a dictionary."""
    parts: tuple[Form, ...] = ()
    flat: bool = False
    """Whether it is a tuple of tensors."""

    @classmethod
    def of(cls, tree: State) -> Form:
        """The form of a tree.

        Args:
            tree: any.

        Returns:
            The form.
        """
        if tree is None or isinstance(tree, Tensor):
            return cls(type(None) if tree is None else Tensor)
        if isinstance(tree, Mapping):
            return cls(dict, tuple(tree), tuple(map(cls.of, tree.values())))
        parts = tuple(map(cls.of, tree))
        return cls(type(tree), (), parts, all(part.kind is Tensor for part in parts))

    def gather(self, tree: State, leaves: list[Tensor]) -> bool:
        """Collect the leaves of a tree.

        Args:
            tree: any.
            leaves: appended to; what is no tensor may be among them.

        Returns:
            False where the tree has another form.
        """
        if self.kind is Tensor:
            leaves.append(tree)
            return True
        if self.kind is dict:
            named = isinstance(tree, Mapping) and len(tree) == len(self.names) and all(name in tree for name in self.names)
            return named and all(form.gather(tree[name], leaves) for name, form in zip(self.names, self.parts, strict=True))
        branches: Any = tree or ()
        if type(tree) is not self.kind or len(branches) != len(self.parts):
            return False
        if self.flat:
            leaves += branches
            return True
        return all(form.gather(part, leaves) for form, part in zip(self.parts, branches, strict=True))

    def put(self, leaves: Iterator[Tensor]) -> State:
        """The inverse of `gather`.

        Args:
            leaves: as many as there are, or more.

        Returns:
            The tree.
        """
        if self.kind is Tensor:
            return next(leaves)
        if self.kind is type(None):
            return None
        parts = islice(leaves, len(self.parts)) if self.flat else [form.put(leaves) for form in self.parts]
        if self.kind is dict:
            return dict(zip(self.names, parts, strict=True))
        return self.kind(*parts) if hasattr(self.kind, "_fields") else tuple(parts)
