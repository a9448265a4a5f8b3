"""Pretrained models: cards and where their files are."""

from condvae.pretrained.store import PretrainedCard, find_model, read_cards

__all__ = ["PretrainedCard", "find_model", "read_cards"]
