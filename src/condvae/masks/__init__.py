"""Masks: kinds, published ones, sampling for training and evaluation, files."""
