from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pemn.errors import ConfigError, FileError, LocalError
from pemn.files import LineLog, prepare_run_dir, read_bytes, read_lines, write_atomic


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_write_then_read_gives_the_same_bytes_with_the_mode_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "key.bin"
    write_atomic(path, b"\x00\xff" * 1000, mode=0o600)
    assert read_bytes(path, max_bytes=2000, what="key") == b"\x00\xff" * 1000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_reader_ever_sees_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new contents")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new contents"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr({"fsync": os, "replace": Path}[step], step, fail)
    with pytest.raises(FileError, match="no space left on device") as caught:
        write_atomic(path, b"new")
    assert str(path) in str(caught.value)
    assert names(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"


def test_ctrl_c_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", b"new")
    assert names(tmp_path) == []


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomic(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"data"


def test_a_device_or_a_folder_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(FileError, match="no regular file"):
            write_atomic(path, b"data")
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file or directory"):
        write_atomic(tmp_path / "missing" / "file", b"data")


def test_reading_refuses_missing_folder_and_too_large(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(11))
    assert len(read_bytes(tmp_path / "big", max_bytes=11, what="mask")) == 11
    for name, reason in (("big", "too large"), ("none", "no such file"), (".", "is a directory")):
        with pytest.raises(FileError, match=f"mask.*{reason}"):
            read_bytes(tmp_path / name, max_bytes=10, what="mask")


def test_log_reads_back_and_grows_over_openings(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with LineLog(path) as log:
        log.write([{"round": 1}, {"round": 2, "name": "zwölf\nlines"}])
        log.write([])
    with LineLog(path) as log:
        log.write([{"round": 3}])
    records = read_lines(path, max_bytes=1000, what="log")
    assert records == [{"round": 1}, {"round": 2, "name": "zwölf\nlines"}, {"round": 3}]
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("cut_off", [b'{"round":', b'{"x":"' + b"y" * 200_000])
def test_log_forgets_the_line_that_a_crash_cut_off(tmp_path: Path, cut_off: bytes) -> None:
    path = tmp_path / "log.jsonl"
    for whole in (b'{"round":1}\n', b""):
        path.write_bytes(whole + cut_off)
        assert len(read_lines(path, max_bytes=1 << 20, what="log")) == len(whole.splitlines())
        with LineLog(path) as log:
            log.write([{"round": 2}])
        assert path.read_bytes() == whole + b'{"round":2}\n'


def test_a_batch_that_fails_leaves_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    with LineLog(path) as log:
        log.write([{"round": 1}])

        def fail(_: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(FileError, match=r"input/output error.*log\.jsonl"):
                log.write([{"round": 2}])
        with pytest.raises(LocalError, match="not JSON"):
            log.write([{"round": 3}, {"loss": float("nan")}])
        log.write([{"round": 4}])
    assert read_lines(path, max_bytes=100, what="log") == [{"round": 1}, {"round": 4}]


def test_reading_a_log_names_the_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for bad in (b"{", b"[1]", b"\xff", b"[" * 100_000):
        path.write_bytes(b'{"a":1}\n' + bad + b"\n")
        with pytest.raises(FileError, match=r"ledger has a line .*log\.jsonl, line 2"):
            read_lines(path, max_bytes=1 << 20, what="ledger")


def test_a_run_folder_is_made_or_taken_when_it_holds_no_results(tmp_path: Path) -> None:
    prepare_run_dir(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "pemn.toml").touch()
    prepare_run_dir(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == ["pemn.toml"]


@pytest.mark.parametrize("name", ["summary.json", "ledger.jsonl"])
def test_a_run_folder_with_results_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"{name}; wanted a new or an empty folder"):
        prepare_run_dir(tmp_path)


def test_a_run_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a folder"):
        prepare_run_dir(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"not a folder: in .*/file$"):
        prepare_run_dir(tmp_path / "file" / "below")


def test_a_log_goes_on_after_the_lines_that_count(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with LineLog(path) as log:
        log.write([{"a": 1}, {"a": 2}, {"a": 3}])
    with LineLog(path, num_lines=2) as log:
        log.write([{"a": 4}])
    assert [line["a"] for line in read_lines(path, max_bytes=1000, what="log")] == [1, 2, 4]
    with pytest.raises(FileError, match="log has fewer lines than it should: wanted 4"):
        LineLog(path, num_lines=4)
    assert len(path.read_text().splitlines()) == 3
