"""What is chosen for the user: conditions, held-out combinations, and what can be changed alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.data.attributes import ALL, CLASS
from condvae.data.store import PreparedImages
from condvae.ground.attributes import AttributeTable

__all__ = ["change_attribute", "choose_conditions", "choose_hold_out", "find_ties"]

MEASURED = ("slant", "thickness", "size")
OF_DIGITS = ("odd", "at_least_five")
MOST_COMBINATIONS = 4
# Among the images with the first value: rarer ones hardly show, commoner ones are what the value is.
LEAST_SHARE, LARGEST_SHARE = 0.15, 0.5


def choose_conditions(images: PreparedImages, *, csv: bool) -> tuple[str, ...]:
    """Name the attributes that a data set offers.

    Args:
        images: With or without labels and published attributes.
        csv: Whether a file has attributes of them.

    Returns:
        All columns and published attributes, where there are any; else the class, what it says of
        digits, and measures of the pixels.
    """
    if csv or images.attribute_names:
        return (ALL,)
    labels = (CLASS,) if images.class_names else ()
    of_digits = OF_DIGITS if images.class_names == tuple(map(str, range(10))) else ()
    return (*labels, *of_digits, *MEASURED)


def choose_hold_out(table: AttributeTable, rows: NDArray[np.int64]) -> list[dict[str, str]]:
    """Choose combinations of values that training is to leave out, by counts alone.

    The attribute with the most values is combined with the one that has the most among those that
    neither determine it nor follow from it. Of each of its values the rarest partner is taken that is
    shown by 15 to 50 % of the value's images; of these combinations up to four, evenly spaced.

    Args:
        table: Conditions of images.
        rows: Images that count, those of the training split.

    Returns:
        Combinations; none where no two attributes go together.
    """
    ties, y = find_ties(table, rows), table.rows(rows)
    ordered = sorted(
        (a for a in table.attributes if not a.is_continuous), key=lambda a: -len(a.values)
    )
    if not ordered:
        return []
    first = ordered[0]
    partners = [a for a in ordered[1:] if a.name not in ties[first.name]]
    if not partners:
        return []
    own, other = (y[:, table.index(a.name)] for a in (first, partners[0]))
    found = []
    for value, name in enumerate(first.values):
        partner = other[(own == value) & ~other.isnan()].long()
        shares = np.bincount(partner, minlength=len(partners[0].values)) / max(len(partner), 1)
        fits = (shares >= LEAST_SHARE) & (shares <= LARGEST_SHARE)
        if fits.any():
            rarest = int(np.where(fits, shares, np.inf).argmin())
            found.append({first.name: name, partners[0].name: partners[0].values[rarest]})
    count = min(len(found), MOST_COMBINATIONS)
    return [found[round(place)] for place in np.linspace(0, len(found) - 1, count)]


def find_ties(table: AttributeTable, rows: NDArray[np.int64]) -> dict[str, set[str]]:
    """Attributes of which one says all about the other: they cannot be changed one by one.

    Args:
        table: Conditions of images.
        rows: Images that count.

    Returns:
        Name -> names of the other attributes that it determines, or that determine it.
    """
    y = table.rows(rows)
    ties: dict[str, set[str]] = {name: set() for name in table.names}
    for a, b in combinations(range(len(table.names)), 2):
        if table.attributes[a].is_continuous or table.attributes[b].is_continuous:
            continue
        both = y[:, [a, b]]
        pairs = {(one, other) for one, other in both[~both.isnan().any(dim=1)].tolist()}
        if len(pairs) in (len({one for one, _ in pairs}), len({other for _, other in pairs})):
            ties[table.names[a]].add(table.names[b])
            ties[table.names[b]].add(table.names[a])
    return ties


def change_attribute(
    table: AttributeTable,
    rows: NDArray[np.int64],
    y: Tensor,
    name: str,
    value: object,
    tied: set[str],
) -> tuple[Tensor, Tensor]:
    """Change one attribute, and with it what it settles: class 3 is odd, whatever was odd before.

    Args:
        table: Conditions of images.
        rows: Images that count.
        y: (B,A).
        name: Of the attribute.
        value: What it becomes, as `encode_value` takes it.
        tied: Its ties, see `find_ties`. One that has a single value among images with `value` gets it;
            the others are unknown before and after, as nothing says what they become.

    Returns:
        Conditions (B,A) before and after.
    """
    place = table.index(name)
    code = table.parse({name: value})[0, place].item()
    seen = table.rows(rows)
    seen = seen[seen[:, place] == code]
    before, settled = y.clone(), {place: code}
    for other in map(table.index, sorted(tied)):
        codes = set(seen[:, other][~seen[:, other].isnan()].tolist())
        if len(codes) == 1:
            settled[other] = codes.pop()
        else:
            before[:, other] = torch.nan
    after = before.clone()
    for column, known in settled.items():
        after[:, column] = known
    return before, after
