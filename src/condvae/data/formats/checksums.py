"""MD5 sums that torchvision's loaders publish for official files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

__all__ = ["OFFICIAL_MD5", "note_unofficial"]

logger = logging.getLogger(__name__)

OFFICIAL_MD5: dict[str, dict[str, str]] = {
    "cifar10": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "celeba": {
        "list_attr_celeba.txt": "75e246fa4810816ffd6ee81facbd244c",
        "list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668",
    },
}


def note_unofficial(source: str, folder: Path, names: Iterable[str]) -> list[str]:
    """Log the files that are not the official ones, and return their names.

    A part of a data set is no mistake, so nothing is refused; a file without a published sum is
    passed over.

    Args:
        source: A key of `OFFICIAL_MD5`.
        folder: Where the files lie.
        names: Their names.
    """
    known = OFFICIAL_MD5[source]
    changed = []
    for name in names:
        if name not in known:
            continue
        with (folder / name).open("rb") as file:
            # Told apart from another file, not protected against a forged one.
            found = hashlib.file_digest(
                file, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
        if found != known[name]:
            changed.append(name)
    if changed:
        logger.warning(
            "%s: not the official files of %s by their MD5 sums: %s",
            folder,
            source,
            ", ".join(changed),
        )
    return changed
