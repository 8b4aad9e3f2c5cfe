"""Errors, files, padded sequences, state trees, noise: what every room stands on."""
