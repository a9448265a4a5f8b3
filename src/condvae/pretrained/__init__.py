"""Pretrained models: cards, where their files are, how to get them, do they score as stated."""

from condvae.pretrained.cards import PretrainedCard, card_named, read_cards
from condvae.pretrained.scores import Verdict, check_score
from condvae.pretrained.store import cache_folder, fetch, find_model

__all__ = [
    "PretrainedCard",
    "Verdict",
    "cache_folder",
    "card_named",
    "check_score",
    "fetch",
    "find_model",
    "read_cards",
]
