"""The data of server-sent events out of bytes as they come, before anybody has read meaning in.

Written here because the readers of lines in HTTP libraries also break at U+2028, which JSON may
hold. Source: the HTML standard, section 9.2.6.
"""


class EventLines:
    """Takes the bytes of one stream in order. How much may come is for the client to bound."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._data: list[str] = []

    def take(self, piece: bytes) -> list[str]:
        """The data of every event that is whole now. UnicodeDecodeError for what is no UTF-8."""
        self._rest += piece
        whole: list[str] = []
        while (end := self._rest.find(b"\n", self._searched)) >= 0:
            line = bytes(self._rest[:end]).removesuffix(b"\r").decode()
            del self._rest[: end + 1]
            self._searched = 0
            if line:
                self._line(line)
            elif self._data:
                whole.append("\n".join(self._data))
                self._data = []
        self._searched = len(self._rest)
        return whole

    def _line(self, line: str) -> None:
        field, _, value = line.partition(":")
        if field == "data":  # the name of an event stands in its data as well
            self._data.append(value.removeprefix(" "))
