"""Proofs and keys as readers see them: hashes in hex, keys as verifier keys."""

from collections.abc import Sequence

from app.api.entry_views import View
from app.audit.key_list import KeyRole, ListedKey
from app.audit.proof_desk import ConsistencyProof, InclusionProof


class InclusionProofView(View):
    """The path from a leaf to the root of the tree of `size` leaves (RFC 6962 section 2.1.1)."""

    index: int
    size: int
    leaf_hash: str
    root: str
    hashes: list[str]


class ConsistencyProofView(View):
    """That the larger tree only appended to the smaller one (RFC 6962 section 2.1.2)."""

    old_size: int
    old_root: str
    new_size: int
    new_root: str
    hashes: list[str]


class KeyView(View):
    """A public key, and at which indexes of the log it counts: from one on, up to below another."""

    role: KeyRole
    id: str | None
    public_key: str
    verifier_key: str | None
    certificate: str | None
    from_index: int
    until_index: int | None


class KeyList(View):
    """The keys of the deployment; of the writers the newest."""

    data: list[KeyView]
    has_more: bool
    next_cursor: None


def inclusion_view(proof: InclusionProof) -> InclusionProofView:
    """As shown."""
    return InclusionProofView(
        index=proof.index,
        size=proof.size,
        leaf_hash=proof.leaf_hash.hex(),
        root=proof.root.hex(),
        hashes=[item.hex() for item in proof.hashes],
    )


def consistency_view(proof: ConsistencyProof) -> ConsistencyProofView:
    """As shown."""
    return ConsistencyProofView(
        old_size=proof.old_size,
        old_root=proof.old_root.hex(),
        new_size=proof.new_size,
        new_root=proof.new_root.hex(),
        hashes=[item.hex() for item in proof.hashes],
    )


def key_list(found: tuple[Sequence[ListedKey], bool]) -> KeyList:
    """As shown."""
    keys, has_more = found
    return KeyList(
        data=[
            KeyView(
                role=key.role,
                id=key.key_id,
                public_key=key.public_key.hex(),
                verifier_key=key.verifier_key,
                certificate=None if key.certificate is None else key.certificate.hex(),
                from_index=key.from_index,
                until_index=key.until_index,
            )
            for key in keys
        ],
        has_more=has_more,
        next_cursor=None,
    )
