"""The provider that governed calls, the bare SDK and LiteLLM ask: one short answer, at once.

Streamed where the request says so, whole otherwise. It looks at nothing else, so that it costs
little beside what is measured.
"""

import asyncio
import json

from tests.support.fake_messages_api import text

ANSWER = "Heard."
_STREAM = b"".join(text(ANSWER).chunks)
_WHOLE = json.dumps(
    {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [{"type": "text", "text": ANSWER}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "output_tokens": 15},
    }
).encode()


def _response(kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


_STREAMED = _response("text/event-stream; charset=utf-8", _STREAM)
_AT_ONCE = _response("application/json", _WHOLE)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            asked = json.loads(await reader.readexactly(length))
            writer.write(_STREAMED if asked.get("stream") else _AT_ONCE)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.close()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
