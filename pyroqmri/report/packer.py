"""Numbers of a page in one compressed string."""

import base64
import gzip

import numpy as np
from numpy.typing import NDArray


class Packer:
    """Arrays one after the other in one compressed string."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: NDArray) -> list[int]:
        """Append an array; where its bytes begin, and how many there are."""
        # bytes of one significance lie together, which compresses better
        flat = np.ascontiguousarray(values).ravel()
        flat = flat.astype(flat.dtype.newbyteorder("<"))
        content = flat.view(np.uint8).reshape(-1, flat.itemsize).T.tobytes()
        self._parts.append(content)
        self._size += len(content)
        return [self._size - len(content), len(content)]

    def text(self) -> str:
        """All of them, compressed, in base64."""
        return base64.b64encode(gzip.compress(b"".join(self._parts), 9, mtime=0)).decode()
