"""Objects in an object store, as its listing describes them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Object:
    """Object in an object store; `repr` shows no names.

    Attributes
    ----------
    key : str
        Key in the bucket.
    name : str
        Relative path of the file that the object is downloaded to.
    size : int
        Size in bytes.
    tag : str or None
        Entity tag, which changes when the bytes do.
    changed : str
        Time of the last change, for stores without tags.
    """

    key: str
    name: str
    size: int
    tag: str | None
    changed: str

    def __repr__(self) -> str:
        return f"<Object: {self.size} bytes>"

    @property
    def state(self) -> str:
        """Text that changes when the bytes of the object change."""
        return f"{self.size} {self.tag or self.changed}"


@dataclass(frozen=True, repr=False)
class Objects:
    """Objects from which a scan in an object store is read; `repr` shows no names.

    Attributes
    ----------
    bucket : str
        ``s3://bucket``.
    members : tuple of Object
        The objects, without duplicates.
    packed : bool
        True where the only object is an archive that contains the files.
    """

    bucket: str
    members: tuple[Object, ...]
    packed: bool = False

    def __repr__(self) -> str:
        return f"<Objects: {len(self.members)}>"

    @property
    def state(self) -> str:
        """Digest of the states of all objects; contains no names."""
        return hashlib.sha256("\n".join(member.state for member in self.members).encode()).hexdigest()
