"""Pretrained models: cards, where their files are, how to get them, do they score as stated."""

from condvae.pretrained.cards import PretrainedCard, card_named, read_cards
from condvae.pretrained.official import resolve_posterior, resolve_vae
from condvae.pretrained.scores import ScoreMismatchError, Verdict, check_score, stated_score
from condvae.pretrained.store import cache_folder, fetch, find_model

__all__ = [
    "PretrainedCard",
    "ScoreMismatchError",
    "Verdict",
    "cache_folder",
    "card_named",
    "check_score",
    "fetch",
    "find_model",
    "read_cards",
    "resolve_posterior",
    "resolve_vae",
    "stated_score",
]
