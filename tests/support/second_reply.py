"""A gate for scripted models that lets the first reply through."""

from app.domain.step import ModelRequest
from tests.support.api_matrix import Hold


class FromTheSecond:
    """Lets the first reply through and holds back those after it."""

    def __init__(self, gate: Hold) -> None:
        self._gate = gate
        self._asked = 0

    async def __call__(self, request: ModelRequest) -> None:
        self._asked += 1
        if self._asked > 1:
            await self._gate(request)
