"""Signatures are those of Standard Webhooks, as its own package verifies and makes them."""

from base64 import b64decode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.webhooks.webhook_signature import shown_secret, signature_headers


def _now() -> int:
    """At each use: the package takes nothing that is older than some minutes."""
    return int(datetime.now(UTC).timestamp())


@given(st.binary(min_size=24, max_size=64), st.text(max_size=200))
def test_the_independent_package_verifies_what_is_signed(key: bytes, text: str) -> None:
    body, now = text.encode("utf-8", "replace"), _now()
    headers = dict(signature_headers([key], message_id="whd_1", at_seconds=now, body=body))
    Webhook(shown_secret(key)).verify(body, headers, json_parse=False)
    made = Webhook(shown_secret(key)).sign("whd_1", datetime.fromtimestamp(now, UTC), body.decode())
    assert headers["webhook-signature"] == made


def test_either_of_two_secrets_verifies_and_a_third_does_not() -> None:
    one, two, three = (bytes([number]) * 32 for number in range(3))
    body = b'{"type":"x"}'
    headers = dict(signature_headers([one, two], message_id="m", at_seconds=_now(), body=body))
    for key in (one, two):
        Webhook(shown_secret(key)).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(shown_secret(three)).verify(body, headers)


def test_a_known_answer() -> None:
    """The vector with which implementations of the specification are tested."""
    key = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert shown_secret(key) == "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signature_headers(
        [key],
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at_seconds=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert headers == (
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    )
