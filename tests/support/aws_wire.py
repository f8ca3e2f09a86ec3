"""What AWS puts on a wire, written from its documents: event stream frames and SigV4 signatures."""

import hashlib
import hmac
import re
import struct
import urllib.parse
import zlib
from collections.abc import Mapping

from tests.support.fake_messages_api import SeenRequest

_STRING = 7  # the type of a header's value
_FORM = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([A-Z0-9]+)/(\d{8})/([a-z0-9-]+)/bedrock/aws4_request,"
    r" SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)


def event_frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message of `application/vnd.amazon.eventstream`."""
    written = b"".join(
        struct.pack("!B", len(name))
        + name.encode()
        + struct.pack("!BH", _STRING, len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(written) + len(payload), len(written))
    body = prelude + struct.pack("!I", zlib.crc32(prelude)) + written + payload
    return body + struct.pack("!I", zlib.crc32(body))


def signature_objection(seen: SeenRequest, secret: str, region: str) -> str:
    """Why AWS would not take this request's signature, or nothing."""
    form = _FORM.fullmatch(seen.headers.get("authorization", ""))
    if form is None or form[3] != region:
        return "authorization"
    day, signed, given = form[2], form[4], form[5]
    path = urllib.parse.quote(seen.path, safe="/-_.~")  # already quoted once: twice, says AWS
    lines = [f"{name}:{' '.join(seen.headers[name].split())}" for name in signed.split(";")]
    canonical = "\n".join(
        ["POST", path, "", *lines, "", signed, hashlib.sha256(seen.raw).hexdigest()]
    )
    scope = f"{day}/{region}/bedrock/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", seen.headers["x-amz-date"], scope, digest])
    key = f"AWS4{secret}".encode()
    for part in (day, region, "bedrock", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    wanted = hmac.digest(key, text.encode(), "sha256").hex()
    return "" if hmac.compare_digest(wanted, given) else "signature"
