"""Configuration and module of each model."""
