"""Pretrained models: cards, where their files are, how to get them, do they score as stated."""

from condvae.models.official import resolve_posterior, resolve_vae
from condvae.models.registry import PretrainedCard, card_named, read_cards
from condvae.models.stated_score import ScoreMismatchError, Verdict, check_score, stated_score
from condvae.models.store import fetch, find_model
from condvae.transport.cache import cache_folder

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
