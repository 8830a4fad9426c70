"""Laws of downloads, against a server on this machine: whole or not at all, continued, checked."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest

from pofx.core import UsageError
from pofx.data import cifar, files
from pofx.data.download import fetch

BODY = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY; `server.breaks` cuts the first answer short, `server.ranges` is whether it continues."""

    def do_GET(self):
        start = 0
        asked = self.headers.get("Range")
        self.server.seen.append(asked)
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(BODY):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        cut = 30_000 if self.server.breaks else len(BODY)
        self.server.breaks = False
        self.wfile.write(BODY[start:][:cut])

    def log_message(self, *_):
        """Silence."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("POFX_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.seen, running.breaks, running.ranges = [], False, True
        running.url = f"http://127.0.0.1:{running.server_address[1]}/file"
        thread = threading.Thread(target=functools.partial(running.serve_forever, poll_interval=0.01))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_downloads_once(server):
    path = fetch(server.url, "set/file", SHA)
    assert path.read_bytes() == BODY
    assert fetch(server.url, "set/file", SHA) == path
    assert server.seen == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_continued_or_begun_again(server, ranges):
    server.breaks, server.ranges = True, ranges
    with pytest.raises(UsageError, match="broke after 30,000"):
        fetch(server.url, "set/file", SHA)
    assert not (files.cache() / "downloads" / "set" / "file").exists()
    assert fetch(server.url, "set/file", SHA).read_bytes() == BODY
    assert server.seen == [None, "bytes=30000-"]


def test_what_is_left_of_another_version_does_not_stick(server):
    part = files.cache() / "downloads" / "set" / "file.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"0" * (len(BODY) + 5))
    assert fetch(server.url, "set/file", SHA).read_bytes() == BODY


def test_a_wrong_checksum_leaves_nothing_behind(server):
    with pytest.raises(UsageError, match="SHA-256"):
        fetch(server.url, "set/file", "0" * 64)
    folder = files.cache() / "downloads" / "set"
    assert [path.name for path in folder.iterdir() if not path.name.endswith(".lock")] == []


def test_a_file_put_there_by_hand_is_used_or_refused(server):
    path = files.cache() / "downloads" / "set" / "file"
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert fetch(server.url, "set/file", SHA) == path
    path.write_bytes(b"other")
    with pytest.raises(UsageError, match="not the expected file"):
        fetch(server.url, "set/file", SHA)
    assert path.read_bytes() == b"other"
    assert server.seen == []


def test_without_a_network_the_sentence_names_the_address_and_the_place(tmp_path, monkeypatch):
    monkeypatch.setenv("POFX_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UsageError) as caught:
        fetch("http://127.0.0.1:9/file", "set/file", SHA)
    assert "http://127.0.0.1:9/file" in str(caught.value)
    assert str(tmp_path / "downloads" / "set" / "file") in str(caught.value)
    assert "\n" not in str(caught.value)


def archive(path, parts):
    with tarfile.open(path, "w:gz") as out:
        for name, body in parts.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(body)
            out.addfile(member, io.BytesIO(body))


def test_cifar_is_read_out_of_its_archive(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    records = [random.integers(0, 10, (3, 3073), dtype=np.uint8) for _ in cifar._PARTS]
    archive(tmp_path / "x.tar.gz", {"../../evil": b"x", **dict(zip(cifar._PARTS, (part.tobytes() for part in records), strict=True))})
    monkeypatch.setattr(cifar, "fetch", lambda *_: tmp_path / "x.tar.gz")
    from pofx import data

    dataset = data.load("cifar10")
    assert dataset.spec.shape == (3, 32, 32)
    assert dataset.spec.label.names[0] == "airplane"
    assert len(dataset.test) == 3
    batch = dataset.test.batch(dataset.test.positions())
    assert np.array_equal(dataset.codec.show(batch.x).reshape(3, -1), records[-1][:, 1:])
    assert batch.label.tolist() == records[-1][:, 0].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar.gz"]


def test_a_cifar_archive_that_lacks_a_part(tmp_path):
    archive(tmp_path / "x.tar.gz", {"data_batch_1.bin": bytes(3073)})
    with pytest.raises(UsageError, match=r"data_batch_2\.bin"):
        cifar.read(tmp_path / "x.tar.gz")
    (tmp_path / "y.tar.gz").write_bytes((tmp_path / "x.tar.gz").read_bytes()[:40])
    with pytest.raises(UsageError, match="not a whole archive"):
        cifar.read(tmp_path / "y.tar.gz")
