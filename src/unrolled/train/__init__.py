"""Fit a model through its contract: windows, optimisers, schedules, checkpoints."""
