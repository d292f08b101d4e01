import errno
import multiprocessing
import os
import resource
import signal
import socket

import pytest

from clvp_train.errors import UserError
from clvp_train.pairs.storage import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path):
    folder = Storage(tmp_path / "folder" if request.param == "local" else "memory://test_storage/folder")
    yield folder
    folder.remove("")


def test_files_are_written_replaced_listed_and_removed(storage):
    assert storage.sizes() == {} == storage.sizes("sub")
    storage.write("a", b"first")
    storage.write("a", b"second")
    storage.write("sub/b", b"")
    assert storage.sizes() == {"a": 6} and storage.sizes("sub") == {"b": 0}
    assert storage.read("a") == b"second" and storage.exists("a") and not storage.exists("sub/a")
    storage.remove("sub")
    storage.remove("nowhere")
    assert storage.sizes("sub") == {} and storage.sizes() == {"a": 6}
    with pytest.raises(FileNotFoundError):
        storage.read("sub/b")


def test_paths_are_named_as_the_user_gave_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Storage("memory://x/y/").path("a") == "memory://x/y/a"
    assert Storage("relative").path("a") == "relative/a"
    Storage("~/below").write("a", b"1")
    assert (tmp_path / "below/a").read_bytes() == b"1"


def test_links_count_as_files(tmp_path):
    """The Hub's cache is made of links."""
    (tmp_path / "blob").write_bytes(b"123")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").symlink_to(tmp_path / "blob")
    assert Storage(tmp_path / "folder").sizes() == {"a": 3}


def test_an_unknown_url_is_refused():
    with pytest.raises(UserError, match="nonsense://x: cannot be opened .*Use a local folder"):
        Storage("nonsense://x")


def write_until_killed(folder):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # the kernel ends the process once a file grows beyond that
    Storage(folder).write("a", b"new" * 100)


def write_beyond_the_limit(folder, results):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        Storage(folder).write("a", b"new" * 100)
    except UserError as error:
        results.put(str(error))


def process_of(function, *arguments):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clvp_train.pipelines.train"])
    process = context.Process(target=function, args=arguments)
    process.start()
    return context, process


def test_a_process_killed_while_it_writes_leaves_the_old_file_whole(tmp_path):
    storage = Storage(tmp_path)
    storage.write("a", b"old")
    _, process = process_of(write_until_killed, tmp_path)
    process.join(60)
    assert process.exitcode == -signal.SIGXFSZ
    (partial,) = set(storage.sizes()) - {"a"}
    assert storage.read("a") == b"old" and partial.startswith(".a.") and storage.sizes()[partial] == 100
    Storage(tmp_path).sweep()
    assert storage.sizes() == {"a": 3}, "what it left half-written is swept by the next"


def test_a_full_disk_is_told_with_the_mend_and_leaves_nothing_half_written(tmp_path):
    storage = Storage(tmp_path)
    storage.write("a", b"old")
    results = multiprocessing.get_context("forkserver").SimpleQueue()
    process_of(write_beyond_the_limit, tmp_path, results)
    message = results.get()
    assert message.startswith(f"{tmp_path}/a: cannot be written (File too large). Raise the limit of file sizes")
    assert message.endswith("run the same command again to resume.")
    assert storage.sizes() == {"a": 3} and storage.read("a") == b"old"


@pytest.mark.parametrize(
    ("code", "mend"), [(errno.ENOSPC, "disk space"), (errno.EDQUOT, "quota"), (errno.EACCES, "permissions")]
)
def test_each_reason_has_its_mend(tmp_path, monkeypatch, code, mend):
    """A disk cannot be filled for a test, so its answer is put in."""

    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=f"{tmp_path}/a: cannot be written .{os.strerror(code)}.. .*{mend}"):
        Storage(tmp_path).write("a", b"1")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path}/taken/pairs/a: cannot be written"):
        Storage(tmp_path / "taken/pairs").write("a", b"1")
    assert Storage(tmp_path / "taken/pairs").sizes() == {}


def test_only_what_dead_processes_of_this_machine_left_is_swept(storage):
    """Another rank may be writing just now."""
    _, process = process_of(os.getpid)
    process.join(60)
    here = socket.gethostname().replace(".", "_")
    dead, own, alive = (f".a.{here}-{pid}.partial" for pid in (process.pid, os.getpid(), os.getppid()))
    elsewhere, shard, hidden = f".a.elsewhere-{process.pid}.partial", f"a.{here}-{process.pid}.partial", ".other"
    for name in (dead, own, alive, elsewhere, shard, hidden):
        storage.write(name, b"1")
    storage.sweep()
    assert set(storage.sizes()) == {alive, elsewhere, shard, hidden}
