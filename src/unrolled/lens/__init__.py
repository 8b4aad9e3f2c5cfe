"""Watches a model through its contract: which part of an input a score came from."""

from unrolled.lens.attribution import Attribution, gradient_times_input, integrated_gradients

__all__ = ["Attribution", "gradient_times_input", "integrated_gradients"]
