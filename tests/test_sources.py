"""Downloads: from a server on this machine, whole and checked or not at all."""

import hashlib
import http.server
import threading
import time

import pytest

from moleclip import sources

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
    file = sources.File("made/made.csv", url, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    monkeypatch.setattr(sources, "FILES", {"made": file})
    monkeypatch.setattr(sources.pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.delenv("MOLECLIP_DATA_DIR", raising=False)
    return file


def test_a_file_is_downloaded_once(made, server, tmp_path):
    path = sources.fetch("made")
    assert path.read_bytes() == CONTENT
    server.RequestHandlerClass.body = b"changed since"
    assert sources.fetch("made").read_bytes() == CONTENT
    assert [item.name for item in (tmp_path / "cache").rglob("*") if item.is_file()] == ["made.csv"]


@pytest.mark.parametrize("body", [b"an error page", CONTENT[:-3], b""])
def test_a_wrong_or_truncated_download_leaves_nothing(made, server, tmp_path, body):
    server.RequestHandlerClass.body = body
    with pytest.raises(sources.DataError, match=r"made\.csv"):
        sources.fetch("made")
    assert [item for item in (tmp_path / "cache").rglob("*") if item.is_file()] == []


def test_without_a_server_the_error_comes_soon_and_says_where_to_put_the_file(made, server, tmp_path):
    server.shutdown()
    server.server_close()
    started = time.monotonic()
    with pytest.raises(sources.DataError, match=f"put the file .{{0,120}} at {tmp_path}/cache/made/made.csv"):
        sources.fetch("made")
    assert time.monotonic() - started < 30


def test_a_mirror_is_used_after_its_checksum(made, server, tmp_path, monkeypatch):
    server.RequestHandlerClass.body = b""
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path))
    (tmp_path / "made").mkdir()
    mirrored = tmp_path / made.path
    mirrored.write_bytes(CONTENT)
    assert sources.fetch("made") == mirrored
    mirrored.write_bytes(CONTENT[:-1])
    with pytest.raises(sources.DataError) as error:
        sources.fetch("made")
    for part in (made.url, made.sha256, hashlib.sha256(CONTENT[:-1]).hexdigest(), "Delete it"):
        assert part in str(error.value)


def test_an_unknown_file():
    with pytest.raises(KeyError, match="paper_results"):
        sources.fetch("results")


def test_every_file_is_pinned():
    assert all(len(file.sha256) == 64 and file.size > 0 for file in sources.FILES.values())
    assert all("532598682d2537590bb2dae31a1277620f03b6d3" in file.url for file in sources.FILES.values())
