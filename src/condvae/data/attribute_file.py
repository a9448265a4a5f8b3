"""Attributes of images in a CSV file: a header, then one row per image, its name first."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condvae.ground.attributes import BINARY, Attribute, encode_value
from condvae.ground.configuration import ConfigurationError

__all__ = ["CONTINUOUS", "AttributeFile", "encode_column", "open_attribute_file", "standardise"]

_log = logging.getLogger(__name__)

CONTINUOUS = "continuous"
"""What a request adds to a name to have numbers kept: ``age:continuous``."""
MISSING_WORDS = frozenset(
    ("na", "n/a", "#n/a", "nan", "null", "none", "nil", "unknown", "missing", "?", "-", "--", ".")
)
"""How tables write that nothing is known, in lower case."""
# Numbers that stand for unknown where all others lie on one side of them; -1 among whole numbers only.
_CODES = (-1.0, -9.0, -99.0, -999.0, -9999.0, 99.0, 999.0, 9999.0)
_SHOWN = 5  # values in a log line or message


@dataclass(frozen=True)
class AttributeFile:
    """The cells of a CSV file that belong to N images.

    Attributes:
        path: Of the file.
        columns: Names of the columns after the first.
        cells: N rows of as many cells as `columns`, stripped; "" = unknown.
        places: N, where each row stands, for messages.
        ignored: Rows that belong to none of the images.
    """

    path: Path
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    places: tuple[str, ...]
    ignored: int


def open_attribute_file(path: Path, origins: Sequence[str]) -> AttributeFile:
    """Read a CSV file and bring its rows into the order of the images.

    Args:
        path: UTF-8, separated by commas; the first column holds the origins of the images (paths
            below the folder of pictures, with slashes), the others attributes.
        origins: (N) of the images. Rows of others are counted, logged and ignored.

    Raises:
        ConfigurationError: Missing or broken file, a row of another length than the header, a second
            row for an image, an image without a row; names it and its line.
    """
    header, *body = _read_rows(path)
    columns = tuple(name.strip() for name in header[1][1:])
    if not columns or "" in columns or len(set(columns)) < len(columns):
        raise ConfigurationError(
            f"{path}: header {', '.join(header[1])!r}; expected a column of file names, then at least "
            "one attribute, with different names"
        )
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    for line, (name, *cells) in body:
        if len(cells) != len(columns):
            raise ConfigurationError(
                f"{path}, line {line}: row {name!r} has {len(cells) + 1} cells; expected "
                f"{len(columns) + 1} as in the header"
            )
        if name in found:
            raise ConfigurationError(
                f"{path}, line {line}: a second row for {name!r}; the first is line {found[name][0]}"
            )
        found[name] = line, tuple(cell.strip() for cell in cells)
    missing = [origin for origin in origins if origin not in found]
    if missing:
        example = f"; the rows have names like {next(iter(found))!r}" if found else ""
        raise ConfigurationError(
            f"{path}: {len(missing)} of {len(origins)} images have no row, e.g. {missing[0]!r}{example}"
        )
    ignored = len(found) - len(set(origins))
    if ignored:
        _log.warning("%s: %d rows belong to no prepared image and are ignored", path, ignored)
    rows = [found[origin] for origin in origins]
    places = tuple(f"{path}, line {line}" for line, _ in rows)
    return AttributeFile(path, columns, tuple(cells for _, cells in rows), places, ignored)


def encode_column(
    file: AttributeFile, name: str, declared: str, training: NDArray[np.int64]
) -> tuple[Attribute, NDArray[np.float64]]:
    """Turn one column into an attribute and what y holds of it.

    Undeclared columns are binary when they hold nothing but 0 and 1, -1 and 1, no and yes or false
    and true; continuous when every value is a number and there are more than two; categorical
    otherwise. Some numbers among words are refused where they would be continuous without the words.
    So is a number that may be a code for unknown: -1 among whole numbers from 0 up, -999 and the like
    beside everything else. Words of `MISSING_WORDS` are unknown unless they are declared as values,
    and numbers may have a decimal comma. What was found out is logged.

    Args:
        file: Of the column.
        name: Of the column.
        declared: ``continuous``, or the values it may hold, ``low|medium|high``; "" to find out. What
            follows a question mark stands for unknown: ``continuous?-1``, ``no|yes?9|refused``, ``?x``.
        training: Numbers of the training images; continuous values are standardised by their moments.

    Returns:
        The attribute, and float64 (N) with nan for unknown.

    Raises:
        ConfigurationError: A value that is not among those declared or not a number, or a column
            without values; names column, value and line.
    """
    column = file.columns.index(name)
    kind, _, unknown = (part.strip() for part in declared.partition("?"))
    values = tuple(value.strip() for value in kind.split("|")) if kind else ()
    missing = {word.strip().lower() for word in unknown.split("|")} | MISSING_WORDS
    missing -= {value.lower() for value in values}
    cells = ["" if row[column].lower() in missing else row[column] for row in file.cells]
    if not any(cells):
        raise ConfigurationError(f"{file.path}: column {name!r} holds no value for these images")
    if kind in ("", CONTINUOUS):
        cells = _with_points(file.path, name, cells)
        if not kind:
            values = _find_values(file.path, name, cells, codes_declared=bool(unknown))
        values = () if kind else values
    attribute = Attribute(name, values)
    _log_column(file, attribute, cells, "declared" if kind else "found", column)
    codes = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            codes[row] = encode_value(attribute, cell)
        except ConfigurationError as error:
            raise ConfigurationError(f"{file.places[row]}: {error}") from None
    return standardise(name, codes, training) if attribute.is_continuous else (attribute, codes)


def standardise(
    name: str, numbers: NDArray[np.float64], training: NDArray[np.int64]
) -> tuple[Attribute, NDArray[np.float64]]:
    """Bring numbers to mean 0 and standard deviation 1 over the training images.

    Args:
        name: Of the attribute.
        numbers: (N), nan = unknown.
        training: Numbers of the training images.

    Raises:
        ConfigurationError: They are all equal or unknown there.
    """
    known = numbers[training]
    known = known[~np.isnan(known)]
    std = float(known.std()) if len(known) else 0.0
    # The variance of equal numbers is not exactly zero once their mean is rounded.
    if not std > 1e-9 * float(np.abs(known).max(initial=0.0)):
        raise ConfigurationError(
            f"attribute {name!r}: the {len(known)} values known of training images do not differ; "
            "expected at least two numbers"
        )
    attribute = Attribute(name, mean=float(known.mean()), std=std)
    return attribute, (numbers - attribute.mean) / attribute.std


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of the rows that are not empty; at least the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_number_rows(file))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file of attributes") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path}: not a readable CSV file ({error})") from None
    if not rows:
        raise ConfigurationError(f"{path}: empty; expected a header and one row per image")
    return rows


def _number_rows(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, strict=True)
    for cells in reader:
        if cells:
            yield reader.line_num, [cells[0].strip(), *cells[1:]]


def _with_points(path: Path, name: str, cells: list[str]) -> list[str]:
    """Numbers with a decimal comma as Python writes them; other columns as they are."""
    known = [cell for cell in cells if cell]
    commas = [cell for cell in known if "," in cell]
    if not commas or not all(re.fullmatch(r"[+-]?\d+(,\d+)?", cell) for cell in known):
        return cells
    if all(re.fullmatch(r"[+-]?\d{1,3},\d{3}", cell) for cell in commas):
        raise ConfigurationError(
            f"{path}: column {name!r} holds {commas[0]!r}: thousands or a decimal comma? Write numbers "
            f"with a point and without separators, or declare its values: '{name}:{commas[0]}|...'"
        )
    return [cell.replace(",", ".") for cell in cells]


def _log_column(
    file: AttributeFile, attribute: Attribute, cells: Sequence[str], how: str, column: int
) -> None:
    """Say what a column was taken for, with its values and counts."""
    counts = Counter(cell for cell in cells if cell)
    if attribute.is_continuous:
        numbers = sorted(float(cell) for cell in counts if _is_number(cell))
        what = f"continuous, {numbers[0]:g} to {numbers[-1]:g}" if numbers else "continuous"
    else:
        shown = ", ".join(f"{value} ({n})" for value, n in counts.most_common(_SHOWN))
        kind = "binary" if attribute.values == BINARY else "categorical"
        what = f"{kind}, {len(counts)} values: {shown}{', ...' if len(counts) > _SHOWN else ''}"
    words = Counter(row[column] for row, cell in zip(file.cells, cells, strict=True) if not cell)
    unknown = ", ".join(f"{word!r} ({n})" for word, n in words.most_common(_SHOWN)) or "none"
    _log.info("%s: column %r %s: %s; unknown: %s", file.path, attribute.name, how, what, unknown)


def _find_values(
    path: Path, name: str, cells: Sequence[str], *, codes_declared: bool
) -> tuple[str, ...]:
    """Values of a column by what it holds; () for numbers."""
    words = {cell for cell in cells if cell}
    lower = {word.lower() for word in words}
    if any(lower <= pair for pair in _BINARY_PAIRS):
        return BINARY
    numbers = {word for word in words if _is_number(word)}
    if len(numbers) <= 2:
        return tuple(sorted(words))
    if numbers == words:
        if not codes_declared:
            _refuse_code(path, name, sorted(map(float, numbers)))
        return ()
    row = next(i for i, cell in enumerate(cells) if cell and cell not in numbers)
    raise ConfigurationError(
        f"{path}: column {name!r} holds numbers and the unknown value {cells[row]!r}; mend it, leave "
        f"the cell empty, say that it means unknown: '{name}:{CONTINUOUS}?{cells[row]}', or declare "
        f"all values: '{name}:{'|'.join(sorted(words)[:3])}|...'"
    )


def _refuse_code(path: Path, name: str, numbers: Sequence[float]) -> None:
    """Ask about a number that may stand for unknown."""
    whole = all(number.is_integer() for number in numbers)
    for code, others in ((numbers[0], numbers[1:]), (numbers[-1], numbers[:-1])):
        small = code in (-1.0, -9.0)
        beyond = max(map(abs, others)) * 1.5 < abs(code) or (code < 0 <= min(others))
        if code in _CODES and beyond and (whole or not small):
            raise ConfigurationError(
                f"{path}: column {name!r} holds {code:g} beside {min(others):g} to {max(others):g}: a "
                f"number, or a code for unknown? Declare '{name}:{CONTINUOUS}?{code:g}' (unknown) or "
                f"'{name}:{CONTINUOUS}' (a number), or all values: '{name}:{numbers[0]:g}|...'"
            )


_BINARY_PAIRS = (
    *({"0", "1"}, {"0.0", "1.0"}, {"-1", "1"}, {"-1.0", "1.0"}),
    *({"no", "yes"}, {"false", "true"}),
)


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False
