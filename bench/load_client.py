"""A small keep-alive load client in a process of its own: the same for baseline and subject."""

import asyncio
import json
import sys
import time


async def _read_response(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def _worker(job: dict[str, str], until: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(job["port"]))
    request = job["request"].encode()
    try:
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(request)
            status = await _read_response(reader)
            if status != int(job["expect"]):
                raise SystemExit(f"the server answered {status}, not {job['expect']}")
            latencies.append(time.perf_counter() - began)
    finally:
        writer.close()


async def main() -> None:
    job: dict[str, str] = json.loads(sys.stdin.read())
    latencies: list[float] = []
    began = time.perf_counter()
    until = began + float(job["seconds"])
    workers = int(job["connections"])
    await asyncio.gather(*(_worker(job, until, latencies) for _ in range(workers)))
    took = time.perf_counter() - began
    latencies.sort()
    print(
        json.dumps(
            {
                "requests": len(latencies),
                "rps": len(latencies) / took,
                "p50_ms": latencies[len(latencies) // 2] * 1000,
                "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
