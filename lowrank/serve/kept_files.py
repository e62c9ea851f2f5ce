"""Files of facts that a workbench has open: in memory, a few a session, gone with it."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass

from ..data.documents.fact_files import FactFile
from ..data.documents.kind import Kind
from .errors import Refusal, short
from .facts import read_file

MOST = 8  # files of all sessions


@dataclass
class KeptFile:
    """A file as it was sent, and as it was last read.

    owner  the session that it belongs to
    """

    owner: str
    name: str
    content: bytes
    kind: str = ""
    read: FactFile | None = None

    def reading(self, kind: Kind) -> FactFile:
        """Its records, read with the labels of a kind.  Raises Refusal for a file that cannot be read."""
        if self.read is None or self.kind != kind.name:
            self.read, self.kind = read_file(self.content, self.name, kind), kind.name
        return self.read


class KeptFiles:
    """The open files by their ids; the one that was used longest ago makes room."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, KeptFile] = OrderedDict()

    def add(self, file: KeptFile) -> str:
        """Keeps a file; returns its id."""
        id = secrets.token_urlsafe(12)
        self._files[id] = file
        while len(self._files) > MOST:
            self._files.popitem(last=False)
        return id

    def find(self, owner: str, id: object) -> KeptFile:
        """The file of an id.  Raises Refusal for one that is not kept, or another session's."""
        file = self._files.get(id) if isinstance(id, str) else None
        if file is None or file.owner != owner:
            raise Refusal(410, f"the file is not kept any more: drop it again, got {short(id)}", param="file")
        self._files.move_to_end(str(id))
        return file

    def drop(self, owner: str) -> None:
        """Forgets the files of a session."""
        for id in [id for id, file in self._files.items() if file.owner == owner]:
            del self._files[id]
