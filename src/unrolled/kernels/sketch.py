"""Sketches: tensors without elements, by which a step is traced. Each operation of torch on them is translated when it is called.

`make_fx` and `FakeTensorMode` of torch do the same for any program, and load most of torch's compiler for it (over a second in a fresh
process). A step needs little of that: a shape, a type and the term of each value, and the operations below autograd, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unrolled.kernels.arithmetic import Traced
from unrolled.kernels.decompose import decompositions
from unrolled.kernels.forecast import forecast
from unrolled.kernels.graph import Unsupported
from unrolled.kernels.lower import Lowering, operation_name
from unrolled.kernels.places import line_here
from unrolled.kernels.terms import Term

aten = torch.ops.aten

META = torch.device("meta")
"""Where tensors have a shape and a type, and no elements."""

BY_ANOTHER_NAME = "in place, on a tensor that is known by another name"


class Memory:
    """What several sketches may be views of: counts how often it was written to, since what was seen before is not what is there now."""

    def __init__(self) -> None:
        """Not written to yet."""
        self.version, self.writer = 0, ""


class Sketch(Tensor):
    """What stands for a tensor of the step: on its device, as far as anybody can see, but without elements."""

    meta: Tensor
    """The same in shape, type and strides."""
    term: Term
    """The value."""
    memory: Memory
    version: int
    """Of the memory, when this was its value."""
    own: bool
    """Whether it may be written to: what an operation made, rather than a leaf or a view."""
    constant: Tensor | None
    """The elements, where they are known: a `torch.tensor` of numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, meta: Tensor, term: Term, memory: Memory, device: torch.device, *, own: bool = False) -> Sketch:
        """Make a sketch.

        Args:
            meta: of its shape and type.
            term: its value.
            memory: where it lies.
            device: where it seems to be.
            own: whether it may be written to.

        Returns:
            The sketch.
        """
        self: Sketch = Tensor._make_wrapper_subclass(
            cls, meta.shape, strides=meta.stride(), storage_offset=meta.storage_offset(), dtype=meta.dtype, device=device
        )
        self.meta, self.term, self.memory, self.version, self.own, self.constant = meta, term, memory, memory.version, own, None
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:  # type: ignore[override]
        """Only where no trace is made any more.

        Args:
            func: of torch.
            types: unused.
            args: unused.
            kwargs: unused.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(f"`{operation_name(func)}` of a tensor that a step kept while it was traced, which has no elements")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Without elements.

        Args:
            tensor_contents: unused.

        Returns:
            Shape and type.
        """
        return f"Sketch({list(self.shape)}, dtype={self.dtype})"


class Sketching(TorchDispatchMode):
    """While a step is traced: translates each operation, and gives back sketches of its results."""

    def __init__(self, lowering: Lowering, device: torch.device) -> None:
        """Trace.

        Args:
            lowering: translates.
            device: where tensors seem to be.
        """
        super().__init__()
        self.lowering, self.device = lowering, device
        self.refused: Unsupported | None = None
        """The first operation that has no equivalent; a step may catch what is raised, but not go on for that."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nobody compiles a trace with torch's compiler, which would be loaded to be told so.
        return False

    def sketch(self, term: Term) -> Sketch:
        """A leaf.

        Args:
            term: what it stands for.

        Returns:
            Its sketch.
        """
        return Sketch(torch.empty(term.shape, dtype=term.node.dtype, device=META), term, Memory(), self.device)

    def term(self, result: Any) -> Term | None:
        """What a result of the step stands for.

        Args:
            result: a sketch, or `None`.

        Returns:
            Its term, or `None`.

        Raises:
            Unsupported: an operation before had no equivalent, or it is no sketch.
        """
        if self.refused is not None:
            raise self.refused
        return None if result is None else _read(result).term

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Translate one operation.

        Args:
            func: below autograd, `torch.ops.aten.…`.
            types: unused.
            args: positional arguments.
            kwargs: arguments by name.

        Returns:
            Sketches of its results.

        Raises:
            Unsupported: it has no equivalent.
        """
        if self.refused is not None:
            raise self.refused
        try:
            way = decompositions().get(func, func.decompose)
            with self:
                result = way(*args, **(kwargs or {}))
            return self._translated(func, args, kwargs or {}) if result is NotImplemented else result
        except Unsupported as reason:
            self.refused = self.refused or Unsupported(f"{reason}{line_here()}")
            raise self.refused from None

    def _translated(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        name = operation_name(func)
        if func is aten.lift_fresh.default:
            return self._of_numbers(args[0])
        if func is aten._local_scalar_dense.default and _read(args[0]).constant is not None:
            return args[0].constant.item()
        for tag, words in REFUSED:
            if tag in func.tags:
                raise Unsupported(words.format(name))
        call = Traced(func, name, _mapped(_term, args), {key: _mapped(_term, value) for key, value in kwargs.items()}, None)
        if func._schema.is_mutable:
            return self._written(call, args)
        value = _without_elements(func, name, _mapped(_meta, args), {key: _mapped(_meta, value) for key, value in kwargs.items()})
        result = _lowered(self.lowering.call, call._replace(value=value))
        memory = _read(args[0]).memory if func.is_view else None
        if not isinstance(value, Tensor):
            return [self._sketch(part, term, memory) for part, term in zip(value, result, strict=True)]
        sketch = self._sketch(value, result, memory)
        sketch.constant = _computed(func, args, kwargs)
        return sketch

    def _sketch(self, value: Tensor, term: Term, memory: Memory | None) -> Sketch:
        return Sketch(value, term, memory or Memory(), self.device, own=memory is None)

    def _of_numbers(self, value: Tensor) -> Sketch:
        """What `torch.tensor` makes: torch hands over the elements before anybody else can have them."""
        value = value.clone()
        sketch = Sketch(value.to(META), self.lowering.constant(value), Memory(), self.device)
        sketch.constant = value
        return sketch

    def _written(self, call: Traced, args: Sequence[Any]) -> Sketch:
        """An operation in place: the sketch is another value from now on, and nobody may have seen the value before by another name."""
        written = [argument.name for argument in call.target._schema.arguments if argument.alias_info and argument.alias_info.is_write]
        first = args[0] if args else None
        if not isinstance(first, Sketch) or written != [call.target._schema.arguments[0].name] or not first.own:
            raise Unsupported(f"{call.name} ({BY_ANOTHER_NAME})")
        first.term = _lowered(self.lowering.written, call._replace(value=first.meta))
        first.memory.version += 1
        first.memory.writer, first.version, first.constant = call.name, first.memory.version, None
        return first


REFUSED = (
    (torch.Tag.nondeterministic_seeded, "{} (random numbers inside the step)"),
    (torch.Tag.data_dependent_output, "a Python value or choice that depends on the elements of a tensor"),
    (torch.Tag.dynamic_output_shape, "{} (whose shape may depend on the elements of a tensor)"),
)
"""What torch says of operations that cannot be traced, and what it means."""


def _mapped(function: Callable[[Tensor], Any], given: Any) -> Any:
    """The tensors among what is given, changed."""
    if isinstance(given, Tensor):
        return function(given)
    return [_mapped(function, part) for part in given] if isinstance(given, list | tuple) else given


def _read(tensor: Any) -> Sketch:
    if not isinstance(tensor, Sketch):
        raise Unsupported("a tensor that is neither a parameter nor a buffer of the cell (see `register_buffer`)")
    if tensor.version != tensor.memory.version:
        raise Unsupported(f"{tensor.memory.writer} ({BY_ANOTHER_NAME})")
    return tensor


def _term(tensor: Tensor) -> Term:
    return _read(tensor).term


def _meta(tensor: Tensor) -> Tensor:
    return _read(tensor).meta


def _without_elements(func: Any, name: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Shape and type of what an operation gives; what torch raises on wrong ones, too."""
    value = forecast(name, arguments, keywords)
    if value is not None:
        return value
    if any(argument.name == "device" for argument in func._schema.arguments):
        keywords = {**keywords, "device": META}
    try:
        return func(*arguments, **keywords)
    except NotImplementedError as error:
        raise Unsupported(name) from error


def _lowered(translate: Callable[[Traced], Any], call: Traced) -> Any:
    try:
        return translate(call)
    except Unsupported:
        raise
    # A way to call an operation that was not thought of must not end the work of a caller who has a plain loop.
    except Exception as error:
        raise Unsupported(f"{call.name} ({type(error).__name__}: {error})") from error


def _computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The elements of what is made of known ones alone."""
    sketches: list[Tensor] = []
    _mapped(sketches.append, [*args, *kwargs.values()])
    if not sketches or any(_read(sketch).constant is None for sketch in sketches):
        return None
    result: Tensor = func(*_mapped(_elements, args), **{key: _mapped(_elements, value) for key, value in kwargs.items()})
    return result


def _elements(tensor: Tensor) -> Tensor | None:
    return _read(tensor).constant
