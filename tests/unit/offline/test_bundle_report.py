"""What the report of a bundle says: places, counts, times, and in words what it does not show."""

import ast
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from app.offline import verify_bundle_main
from app.offline.bundle_reader import RECORDS
from app.offline.offline_policy import parse_policy
from app.offline.offline_report import Report
from app.offline.offline_verdict import Freshness, verify_bundle
from scripts.vector_keys import MOMENT, RUN, TENANT
from tests.architecture.source_tree import ROOT, imports, parsed
from tests.support.published_bundles import bundle_vectors, policy_named, tar_named

KEYS = {
    "result",
    "exit",
    "findings",
    "proves",
    "does_not_prove",
    "records",
    "witnessed",
    "witnessed_at",
    "unwitnessed_since",
    "erased",
    "deleted",
}


def report_on(name: str, freshness: Freshness | None = None) -> Report:
    text = policy_named(name)
    pinned = None if text is None else parse_policy(text.encode())
    return verify_bundle(tar_named(name), pinned, freshness)


def test_a_bundle_that_holds_has_no_finding_and_says_what_it_shows() -> None:
    report: dict[str, Any] = report_on("plain").as_json()
    assert report.keys() == KEYS
    assert (report["result"], report["exit"], report["findings"]) == ("valid", 0, [])
    assert (report["records"], report["witnessed"], report["erased"]) == (5, 5, [])
    assert report["proves"][0] == f"these are records of run {RUN.hex()} in log {TENANT.hex()}"
    assert report["does_not_prove"]
    assert report["unwitnessed_since"] is None


def test_the_time_is_when_the_quorum_was_made_up_not_when_the_first_witness_came() -> None:
    assert report_on("plain").witnessed_at == MOMENT + 1


def test_what_is_lawfully_gone_is_told_by_record() -> None:
    assert report_on("anonymized").erased == [
        {"seq": 0, "header": False, "fields": ["task"]},
        {"seq": 4, "header": False, "fields": ["output"]},
    ]
    report = report_on("deleted")
    told = report.erased
    assert [item["header"] for item in told] == [True] * 5
    assert told[4]["fields"] == ["note", "output"]
    assert report.deleted
    assert not report_on("anonymized").deleted


def test_of_a_deleted_run_nothing_is_claimed_but_that_it_was() -> None:
    report = report_on("deleted")
    assert any("was deleted" in sentence for sentence in report.proves())
    assert not any("disclosed" in sentence for sentence in report.proves())
    assert any("anything that the run said" in sentence for sentence in report.does_not_prove())


def _time_of_record(name: str, seq: int) -> str:
    with tarfile.open(fileobj=io.BytesIO(tar_named(name))) as tar:
        records = tar.extractfile(RECORDS)
        assert records is not None
        told: str = json.loads(records.readlines()[seq])["ts"]
    return told


def test_a_tail_that_nobody_saw_is_counted_and_named() -> None:
    report = report_on("tail not sequenced")
    assert (report.records, report.witnessed) == (5, 3)
    assert [(found.where, found.seq) for found in report.findings] == [(RECORDS, 3)]
    assert report.unwitnessed_since == _time_of_record("tail not sequenced", 3)
    assert any("2 records" in sentence for sentence in report.does_not_prove())


@pytest.mark.parametrize(
    ("name", "where", "seq"),
    [
        ("plain: a value", "payloads.jsonl", 0),
        ("plain: a time", "records.jsonl", 1),
        ("plain: a chain hash", "records.jsonl", 2),
        ("plain: a batch's signature", "batches.jsonl", 0),
        ("plain: a certificate by a key the bundle brings", "writers.jsonl", 2),
        ("plain: a file the manifest does not fit", "manifest.json", None),
        ("plain: the anchor's value", "anchor.json", None),
        ("plain: the operator's size", "operator.note", None),
        ("anonymized: one field more is gone", "payloads.jsonl", 2),
        ("deleted: a header is back", "records.jsonl", 1),
        ("a retired writer went on", "batches.jsonl", 1),
    ],
)
def test_a_finding_names_the_file_and_the_record(name: str, where: str, seq: int | None) -> None:
    report = report_on(name)
    assert (where, seq) in {(found.where, found.seq) for found in report.findings}
    assert (report.witnessed, report.witnessed_at) == (0, None)
    assert report.unwitnessed_since is None
    assert report.proves() == ()


def test_no_vector_that_does_not_hold_claims_to_show_anything() -> None:
    for name, vector in bundle_vectors().items():
        if vector["output"]["exit"] == 3:
            assert report_on(name).as_json()["proves"] == [], name


def words(tmp_path: Path, name: str = "plain") -> list[str]:
    (tmp_path / "b.tar").write_bytes(tar_named(name))
    (tmp_path / "p.txt").write_text(policy_named(name) or "", encoding="ascii")
    return [str(tmp_path / "b.tar"), "--policy", str(tmp_path / "p.txt")]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("plain", 0),
        ("tail not sequenced", 2),
        ("plain: a value", 3),
        ("no bundle: cut in the middle", 4),
    ],
)
def test_the_exit_code_is_the_verdict(
    name: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify_bundle_main.main([*words(tmp_path, name), "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == KEYS
    assert told["exit"] == code
    assert verify_bundle_main.main(words(tmp_path, name)) == code
    assert capsys.readouterr().out.startswith(f"result   {told['result']}\n")


def test_how_old_the_cosignatures_may_be_is_for_the_reader_to_say(tmp_path: Path) -> None:
    given = [*words(tmp_path), "--max-age-seconds", "60"]
    assert verify_bundle_main.main([*given, "--now", str(MOMENT + 61)]) == 0
    assert verify_bundle_main.main([*given, "--now", str(MOMENT + 62)]) == 2
    assert verify_bundle_main.main([*given, "--now", str(MOMENT - 1)]) == 2
    assert verify_bundle_main.main([*words(tmp_path), "--max-age-seconds", "0"]) == 2


def test_without_a_policy_the_answer_is_2(tmp_path: Path) -> None:
    assert verify_bundle_main.main(words(tmp_path)[:1]) == 2


@pytest.mark.parametrize("missing", ["b.tar", "p.txt"])
def test_a_file_that_cannot_be_read_is_4(missing: str, tmp_path: Path) -> None:
    given = words(tmp_path)
    (tmp_path / missing).unlink()
    assert verify_bundle_main.main(given) == 4
    (tmp_path / missing).mkdir()
    assert verify_bundle_main.main(given) == 4


@pytest.mark.parametrize(
    "given",
    [[], ["a", "b"], ["a", "--pol", "p"], ["a", "--now", "-1"], ["a", "--max-age-seconds", "1e3"]],
)
def test_words_it_does_not_know_are_4_and_no_verdict(given: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        verify_bundle_main.main(given)
    assert left.value.code == 4


def test_a_hostile_name_reaches_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify_bundle_main.main([str(tmp_path / "no\x1b[2Jsuch")]) == 4
    assert "\x1b" not in capsys.readouterr().out


def test_the_room_imports_the_standard_library_cryptography_and_itself() -> None:
    files = sorted((ROOT / "app" / "offline").glob("*.py"))
    found = {use.name for file in files for use in imports(parsed(file))}
    strangers = {
        name
        for name in found
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "cryptography"}
        and not name.startswith("app.offline")
    }
    assert len(files) > 9
    assert strangers == set()


def test_the_room_opens_no_connection_and_runs_nothing() -> None:
    banned = {"socket", "ssl", "http", "urllib", "asyncio", "subprocess", "ctypes", "tarfile"}
    for file in (ROOT / "app" / "offline").glob("*.py"):
        named = {use.name.partition(".")[0] for use in imports(ast.parse(file.read_text("utf-8")))}
        assert named.isdisjoint(banned), file.name
