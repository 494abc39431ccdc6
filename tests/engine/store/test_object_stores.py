"""Stores in buckets, by the API of S3: an own server on this machine, once for all tests here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import moto.settings
import pyarrow.fs as pafs
import pytest
import s3fs
from kill_s3 import GONE, RUNS
from random_heads import random_head
from s3_server import environment_of, s3_server
from store_cases import contents, expected, fill, make_features, make_spec
from tiny_encoders import corpus

from bitheads import Engine, StoreError
from bitheads.engine.commands import backfill, encode
from bitheads.engine.commands import store as store_command
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.store import FeatureStore, StoreWriter, compact, delete, lease, verify
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.lease import Lease
from bitheads.engine.store.lock_objects import LockChanged, S3Object

TEXTS = corpus()[:30]
DEADLINE_S = 60.0


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def files(server: str, monkeypatch: pytest.MonkeyPatch) -> s3fs.S3FileSystem:
    """The bucket `texts`, empty, and the environment that leads to it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment_of(server).items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", b""), timeout=20)
    found = s3fs.S3FileSystem(endpoint_url=server, key="a", secret="b", use_listings_cache=False)
    found.mkdir("texts")
    return found


def names(files: s3fs.S3FileSystem, folder: str = "texts/store") -> list[str]:
    found = sorted(path.rpartition("/")[2] for path in files.find(folder))
    return [name for name in found if name]  # pyarrow puts an object for the folder


def test_nothing_is_published_for_a_run_that_is_over(files: s3fs.S3FileSystem) -> None:
    folder, worker = Folder("s3://texts/store"), Folder("s3://texts/store")
    with folder.lock():
        worker.publish_for(folder.holder)
        worker.write_aside("a").publish()
    for _ in range(2):  # nobody writes, and then somebody does
        with pytest.raises(StoreError, match="the run that this is a part of is over"):
            worker.write_aside("b").publish()
        with folder.lock(), pytest.raises(StoreError, match="is over"):
            worker.write_aside("b").publish()
    assert names(files) == ["a"]


def test_all_commands(
    files: s3fs.S3FileSystem,
    own_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = Engine.load(own_bundle, "onnxruntime")
    write_head(random_head(engine.spec, task="tone"), own_bundle / "heads" / "tone.safetensors")
    source, store = tmp_path / "texts.jsonl", "s3://texts/store"

    def write(texts: list[str]) -> None:
        rows = [json.dumps({"id": f"id-{i}", "text": text}) for i, text in enumerate(texts)]
        source.write_text("\n".join(rows))

    def run(main: Callable[[list[str]], int], *options: object) -> str:
        assert main([*map(str, options)]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    fixed = ["--bundle", own_bundle, "--store", store]
    read = [*fixed, "--input", source, "--backend", "onnxruntime", "--part-seconds", "0.01"]
    answering = [*fixed, "--output", "s3://texts/answers"]
    write(TEXTS)
    assert "(30 new, 0 changed)" in run(encode.main, *read, "--chunk-texts", 8)
    assert "30 texts" in run(backfill.main, *answering)
    edited = [*TEXTS[:5], "another", *TEXTS[6:]]
    write(edited)
    assert "(0 new, 1 changed)" in run(encode.main, *read)
    assert "(0 new, 30 in the place" in run(encode.main, *read, "--existing", "replace")
    (tmp_path / "ids.txt").write_text("id-5\nid-29\n")
    erase = ["delete", "--store", store, "--ids", tmp_path / "ids.txt"]
    report = json.loads(run(store_command.main, *erase, "--answers", "s3://texts/answers"))
    assert (report["rows"], report["absent"]) == (2, [])
    assert [one["task"] for one in report["answers"]] == ["tone"]
    paths = [path for path in files.find("texts") if not path.endswith("/")]
    assert any("answers" in path for path in paths)
    assert not [path for path in paths if b"id-29" in files.cat(path)]
    assert "now" in run(store_command.main, "compact", store)
    assert "are sound" in run(store_command.main, "verify", store)
    assert "28 texts, 1 tasks" in run(backfill.main, *answering)
    found = [features.codes.tobytes() for features in engine.encode([*edited])]
    kept = {f"id-{i}": one for i, one in enumerate(found) if i not in (5, 29)}
    assert contents(FeatureStore(store)) == kept
    assert [name for name in names(files, "texts") if not name.startswith("part-")] == []


@pytest.mark.parametrize("kind", ["pyarrow", "s3fs"])
def test_one_writer_at_a_time(files: s3fs.S3FileSystem, kind: str) -> None:
    where: dict[str, Any] = {"path": "s3://texts/store"}
    if kind == "s3fs":
        where = {"path": "texts/store", "filesystem": files}
    store = FeatureStore(spec=make_spec(), **where)
    with StoreWriter(store) as writer:
        for run in (StoreWriter, compact, lambda store: delete(store, ["text-1"])):
            with pytest.raises(StoreError, match=r"another process is writing there \(.*lease"):
                run(FeatureStore(spec=make_spec(), **where))
        writer.append(["a"], make_features(make_spec(), 1))
    assert ".lock" not in names(files)
    StoreWriter(store).close()
    assert len(FeatureStore(**where)) == 1


def lock_of(files: s3fs.S3FileSystem) -> S3Object:
    return S3Object(files, "texts/store/.lock", "s3://texts/store")


def test_a_lease_that_ended_is_taken_over_by_one(
    files: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    monkeypatch.setattr(lease, "RENEWALS", 0.01)  # it sleeps
    slept, others = (
        Lease(lock_of(files), "slept"),
        [Lease(lock_of(files), "other") for _ in range(3)],
    )
    slept.take()
    slept.check()
    with pytest.raises(StoreError, match="whose lease ends at"):
        others[0].take()
    time.sleep(2.1)
    monkeypatch.setattr(lease, "LEASE_S", 60.0)
    taken = 0
    for other in others:
        other._lease_s = 60.0
        try:
            other.take()
            taken += 1
        except StoreError:
            continue
    assert taken == 1
    others[0].check()
    with pytest.raises(StoreError, match="ended before it could be renewed"):
        slept.check()
    slept.let_go()  # what is another's stays
    assert json.loads(files.cat("texts/store/.lock"))["owner"] == others[0].owner
    others[0].let_go()
    assert names(files) == []


def test_a_lease_is_renewed_until_another_has_it(
    files: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 4.0)
    store = FeatureStore("s3://texts/store", make_spec())
    writer = StoreWriter(store)
    first = files.cat("texts/store/.lock")
    deadline_s = time.monotonic() + DEADLINE_S
    while files.cat("texts/store/.lock") == first:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    writer.append(["a"], make_features(make_spec(), 1))
    writer.flush()
    files.pipe_file("texts/store/.lock", b'{"owner": "another", "ends": 9e9}')

    def wait() -> None:
        while time.monotonic() < deadline_s:
            store.folder.check_lease()
            time.sleep(0.05)

    with pytest.raises(StoreError, match="ended before it could be renewed"):
        wait()
    writer.append(["b"], make_features(make_spec(), 1))
    with pytest.raises(StoreError, match="run the same command again"):
        writer.close()
    assert json.loads(files.cat("texts/store/.lock"))["owner"] == "another"
    assert [*contents(FeatureStore("s3://texts/store"))] == ["a"]


def test_conditional_puts(files: s3fs.S3FileSystem) -> None:
    lock = lock_of(files)
    assert lock.read() is None
    tag = lock.create(b"1")
    for refused in (lambda: lock.create(b"2"), lambda: lock.replace(b"2", '"no"')):
        with pytest.raises(LockChanged):
            refused()
    with pytest.raises(LockChanged):
        lock.remove('"no"')
    assert lock.read() == (b"1", tag)
    assert lock.is_exclusive()
    lock.remove(lock.replace(b"3", tag))
    assert lock.read() is None


def test_a_put_whose_answer_was_lost(
    files: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It succeeded; sent again, its condition does not hold: not another's lease for that."""
    put = S3Object._put
    lost = 0

    def put_twice(self: S3Object, data: bytes, **condition: str) -> str:
        nonlocal lost
        lost += 1
        put(self, data, **condition)
        return put(self, data, **condition)

    monkeypatch.setattr(lease, "LEASE_S", 4.0)
    monkeypatch.setattr(S3Object, "is_exclusive", lambda self: True)
    held = Lease(lock_of(files), "held")
    with monkeypatch.context() as flaky:
        flaky.setattr(S3Object, "_put", put_twice)
        held.take()
        deadline_s = time.monotonic() + DEADLINE_S
        while lost < 3:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    held.check()
    held.let_go()
    assert names(files) == []
    files.pipe_file("texts/store/.lock", b'{"owner": "killed", "ends": 1}')
    taker = Lease(lock_of(files), "taker")
    with monkeypatch.context() as flaky:
        flaky.setattr(S3Object, "_put", put_twice)
        taker.take()
    taker.let_go()
    assert names(files) == []


def test_a_lock_that_holds_no_lease(files: s3fs.S3FileSystem) -> None:
    files.pipe_file("texts/store/.lock", b"{}")
    with pytest.raises(StoreError, match=r"its object .lock holds no lease"):
        StoreWriter(FeatureStore("s3://texts/store", make_spec()))


def test_a_server_that_ignores_conditions(
    files: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    call = type(files).call_s3

    def unconditional(self: Any, method: str, **options: Any) -> Any:
        options.pop("IfNoneMatch", None)
        return call(self, method, **options)

    monkeypatch.setattr(type(files), "call_s3", unconditional)
    fill("s3://texts/store")  # type: ignore[arg-type]
    assert "nothing keeps two writers apart" in caplog.text


@pytest.mark.parametrize(
    "command", ["append", "compact", "delete", pytest.param("replace", marks=pytest.mark.long)]
)
def test_killed_and_run_again(files: s3fs.S3FileSystem, command: str) -> None:
    uri = "s3://texts/store"
    if command != "append":
        RUNS["append"](FeatureStore(uri, make_spec()))
        before = contents(FeatureStore(uri))
    script = Path(__file__).with_name("kill_s3.py")
    paths = os.pathsep.join(str(folder) for folder in script.parents[1:4])
    lock_holder = Lease(lock_of(files), uri)
    with subprocess.Popen(
        [sys.executable, str(script), command, uri, "4"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    ) as child:
        assert child.stdout is not None
        for _ in range({"append": 3, "compact": 2}.get(command, 1)):
            assert child.stdout.readline() == b"changed\n"
        child.kill()
    assert child.wait() != 0
    with pytest.raises(StoreError, match="another process is writing"):
        lock_holder.take()
    files.pipe_file("texts/store/.part-00000000-0.parquet.1-2.partial", b"half")
    found = contents(FeatureStore(uri))
    if command == "append":
        assert 3 * 40 <= len(found) < 6 * 40
    else:
        assert found.keys() <= before.keys()
    ends = json.loads(files.cat("texts/store/.lock"))["ends"]
    time.sleep(max(0.0, ends - time.time()) + 0.01)
    RUNS[command](FeatureStore(uri, make_spec()))
    whole = contents(FeatureStore(uri))
    assert verify(uri) == []
    assert [name for name in names(files) if not name.startswith("part-")] == []
    if command == "append":
        assert whole == expected(6, 40)
    elif command == "replace":
        assert whole.keys() == before.keys()
        assert sum(whole[name] != codes for name, codes in before.items()) == 81
    else:
        gone = GONE if command == "delete" else []
        assert whole == {name: codes for name, codes in before.items() if name not in gone}


def test_uploads_that_a_killed_writer_began_are_ended(files: s3fs.S3FileSystem) -> None:
    where = {"Bucket": "texts", "Key": "store/.part-00000000-0.parquet.1-2.partial"}
    begun = files.call_s3("create_multipart_upload", **where)
    piece = {"UploadId": begun["UploadId"], "PartNumber": 1, "Body": b"codes" * 9}
    files.call_s3("upload_part", **where, **piece)
    other = files.call_s3("create_multipart_upload", Bucket="texts", Key="elsewhere")
    fill("s3://texts/store")  # type: ignore[arg-type]
    left = files.call_s3("list_multipart_uploads", Bucket="texts")["Uploads"]
    assert [upload["UploadId"] for upload in left] == [other["UploadId"]]


def test_credentials_that_may_not_end_uploads(
    files: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    call = type(files).call_s3

    def denied(self: Any, method: str, **options: Any) -> Any:
        if method == "list_multipart_uploads":
            raise PermissionError("Access Denied")
        return call(self, method, **options)

    monkeypatch.setattr(type(files), "call_s3", denied)
    fill("s3://texts/store")  # type: ignore[arg-type]
    assert "cannot be ended (Access Denied)" in caplog.text


def test_a_bucket_that_is_not_there(
    files: s3fs.S3FileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("info", "verify", "compact"):
        assert store_command.main([command, "s3://absent/store"]) == 1
        shown = capsys.readouterr().err
        assert "bucket 'absent' is not there" in shown
        assert shown.count("\n") == 1
    with pytest.raises(StoreError, match="bucket 'absent' is not there"):
        FeatureStore("s3://absent/store", make_spec())
    with (
        pytest.raises(StoreError, match=r"bucket 'absent' cannot be written to .*does not exist"),
        Folder("s3://absent/x").lock(),
    ):
        pass


def test_wrong_credentials(
    files: s3fs.S3FileSystem,
    server: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill("s3://texts/store")  # type: ignore[arg-type]

    endpoint = server.removeprefix("http://")
    uri = f"s3://who:what@texts/store?endpoint_override={endpoint}&scheme=http&region=us-east-1"
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # it asks who it is
    for command in ("info", "compact"):
        assert store_command.main([command, uri]) == 1
        shown = capsys.readouterr().err
        assert "bucket 'texts'" in shown
        assert "AWS_ACCESS_KEY_ID" in shown
        assert shown.count("\n") == 1
    other = s3fs.S3FileSystem(endpoint_url=server, key="who", secret="what")
    with pytest.raises(StoreError, match=r"bucket 'texts' cannot be .*AWS_ACCESS_KEY_ID"):
        S3Object(other, "texts/store/.lock", "s3://texts/store").create(b"1")


def test_pyarrow_without_s3fs(files: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert isinstance(FeatureStore("s3://texts/s", make_spec()).folder.filesystem, pafs.FileSystem)
    with pytest.raises(StoreError, match="cannot be locked, which needs s3fs"):
        StoreWriter(FeatureStore("s3://texts/s", make_spec()))


def test_in_memory_one_writer_at_a_time() -> None:
    store = FeatureStore("memory://locked/store", make_spec())
    with StoreWriter(store), pytest.raises(StoreError, match="another process is writing"):
        StoreWriter(FeatureStore("memory://locked/store", make_spec()))
    StoreWriter(store).close()
