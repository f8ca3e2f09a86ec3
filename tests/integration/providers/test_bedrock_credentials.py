"""Credentials that do not come hold up neither a run nor more than a few threads."""

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest

from app.domain.errors import ModelError
from tests.contract.test_provider_contract import cleared
from tests.support.provider_wires import KEY, ConverseWire, provider_of, reply, served

pytestmark = pytest.mark.anyio

CALLS = 12
MOST_THREADS = 4


def signing_threads() -> int:
    return sum(thread.name.startswith("bedrock-sign") for thread in threading.enumerate())


async def test_credentials_that_hang_free_every_run_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, config, wire = tmp_path / "credentials", tmp_path / "config", ConverseWire()
    os.mkfifo(pipe)  # a program that reads it waits until somebody writes
    config.write_text(f"[default]\ncredential_process = cat {pipe}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with served(wire, [reply(wire, "with credentials")]) as api:
        async with provider_of(wire, api.base_url) as provider:
            await provider.warm_up()
            ends = await asyncio.gather(
                *(provider.complete(cleared(wire, seconds=1.0)) for _ in range(CALLS)),
                return_exceptions=True,
            )
            threads = signing_threads()
            found = {"Version": 1, "AccessKeyId": "AKIATEST", "SecretAccessKey": KEY}
            await asyncio.to_thread(pipe.write_text, json.dumps(found))  # or pytest could not end
            assert [str(end) for end in ends] == [str(ModelError("model.timeout"))] * CALLS
            assert 0 < threads <= MOST_THREADS
            assert api.requests == []
            answer = await provider.complete(cleared(wire))
    assert answer.text == "with credentials"


def test_the_endpoint_is_the_region_s_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from app.providers.extras.bedrock_session import _Signer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:9")
    signer = _Signer("eu-central-1", None)
    hello = [{"role": "user", "content": [{"text": "hello"}]}]
    signed = signer.signed({"modelId": "amazon.nova-lite-v1:0", "messages": hello})
    assert signed.url.startswith("https://bedrock-runtime.eu-central-1.amazonaws.com/model/")
