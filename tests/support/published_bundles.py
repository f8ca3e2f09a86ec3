"""The bundles of the published vectors as files, and other bundles made of their members."""

import base64
import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from scripts.vector_bundles import NAMES, tar_of

FILE = Path(__file__).resolve().parents[1] / "contract" / "vectors" / "log" / "bundle.json"


@cache
def bundle_vectors() -> Mapping[str, Mapping[str, Any]]:
    """Every vector of a bundle by its name."""
    return {vector["name"]: vector for vector in json.loads(FILE.read_bytes())["vectors"]}


def tar_named(name: str) -> bytes:
    """The file of a vector: as it is given, or made of its members."""
    output = bundle_vectors()[name]["output"]
    if "tar" in output:
        return base64.b64decode(output["tar"])
    tar = tar_of(members_named(name))
    assert sha256(tar).hexdigest() == output["tar_sha256"], name
    return tar


def members_named(name: str) -> dict[str, bytes]:
    """The members of a vector's bundle in their order."""
    shown = _shown(name)
    return {name: "".join(f"{line}\n" for line in shown[name]).encode() for name in NAMES}


def policy_named(name: str) -> str | None:
    """The policy that a vector's bundle is judged by, if any."""
    text: str | None = bundle_vectors()[name]["input"]["policy"]
    return text


def _shown(name: str) -> dict[str, list[str]]:
    output = bundle_vectors()[name]["output"]
    changed: dict[str, list[str]] = output["members"]
    return _shown(output["base"]) | changed if "base" in output else changed
