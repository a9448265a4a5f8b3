"""Published data sets: cards, downloads, archives, licences."""

from __future__ import annotations

from condvae.data.fetching.cards import DatasetCard, DatasetFile, card_named, read_cards
from condvae.data.fetching.provision import check_obtainable, provide_pictures
from condvae.data.fetching.store import check_licence, fetch_dataset

__all__ = [
    "DatasetCard",
    "DatasetFile",
    "card_named",
    "check_licence",
    "check_obtainable",
    "fetch_dataset",
    "provide_pictures",
    "read_cards",
]
