"""The receipt of a submission as its caller keeps it: hashes, keys and signatures in hex.

Whoever keeps it can show, without this server and against it, what was recorded when the task was
accepted or refused.

Source: docs/ledger-format.md section 14.
"""

from app.api.entry_views import View
from app.domain.receipt import BatchShare, RecordReceipt


class BatchReceiptView(View):
    """The writer's signature over the batch that holds the record, and the record's path in it.

    `certificate` is the enrolment key's signature over the writer's id and key.
    """

    batch_id: str
    writer_id: str
    public_key: str
    certificate: str
    n: int
    index: int
    proof: list[str]
    signature: str


class ReceiptView(View):
    """What the ledger holds of the acceptance of this run, or of its refusal; it is durable.

    `chain_hash` covers the record and all before it. `batch` is null when the write was found to
    have been made although its answer was lost; `GET /v1/runs/{id}/bundle` has the signature then.
    """

    log: str
    run: str
    seq: int
    record_hash: str
    chain_hash: str
    batch: BatchReceiptView | None


def receipt_view(receipt: RecordReceipt, certificate: bytes) -> ReceiptView:
    """As shown."""
    share = receipt.share
    return ReceiptView(
        log=receipt.log.hex(),
        run=receipt.run.hex(),
        seq=receipt.seq,
        record_hash=receipt.rc.hex(),
        chain_hash=receipt.chain.hex(),
        batch=None if share is None else _batch_view(share, certificate),
    )


def _batch_view(share: BatchShare, certificate: bytes) -> BatchReceiptView:
    return BatchReceiptView(
        batch_id=share.batch_id.hex(),
        writer_id=share.writer.hex(),
        public_key=share.public_key.hex(),
        certificate=certificate.hex(),
        n=share.count,
        index=share.index,
        proof=[item.hex() for item in share.proof],
        signature=share.signature.hex(),
    )
