import errno
import multiprocessing
import os
import resource
import signal
import socket

import pytest

from clvp_train.errors import UserError
from clvp_train.pairs import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path):
    folder = Storage(tmp_path / "folder" if request.param == "local" else "memory://test_storage/folder")
    yield folder
    folder.remove("")


def test_write_replace_list_remove(storage):
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


def test_paths_and_links(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Storage("memory://x/y/").path("a") == "memory://x/y/a"
    assert Storage("relative").path("a") == "relative/a"
    Storage("~/below").write("a", b"123")
    assert (tmp_path / "below/a").read_bytes() == b"123"
    (tmp_path / "link").symlink_to(tmp_path / "below/a")  # as in the Hub's cache
    assert Storage(tmp_path).sizes() == {"link": 3}


def test_unknown_url():
    with pytest.raises(UserError, match="nonsense://x: cannot be opened .*Use a local folder"):
        Storage("nonsense://x")


def write_until_killed(folder):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # the kernel kills the process when a file grows beyond
    Storage(folder).write("a", b"new" * 100)


def write_beyond_the_limit(folder, results):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        Storage(folder).write("a", b"new" * 100)
    except UserError as error:
        results.put(str(error))


def start(function, *arguments):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clvp_train.pairs"])
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def test_kill_during_a_write_keeps_the_old_file(tmp_path):
    storage = Storage(tmp_path)
    storage.write("a", b"old")
    process = start(write_until_killed, tmp_path)
    process.join(60)
    assert process.exitcode == -signal.SIGXFSZ
    (partial,) = set(storage.sizes()) - {"a"}
    assert storage.read("a") == b"old" and partial.startswith(".a.") and storage.sizes()[partial] == 100
    storage.sweep()
    assert storage.sizes() == {"a": 3}


def test_full_disk_keeps_the_old_file(tmp_path):
    storage = Storage(tmp_path)
    storage.write("a", b"old")
    results = multiprocessing.get_context("forkserver").SimpleQueue()
    start(write_beyond_the_limit, tmp_path, results)
    message = results.get()
    assert message.startswith(f"{tmp_path}/a: cannot be written (File too large). Raise the limit of file sizes")
    assert storage.sizes() == {"a": 3} and storage.read("a") == b"old"


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "disk space"), (errno.EDQUOT, "quota"), (errno.EACCES, "permissions")]
)
def test_remedy_per_error(tmp_path, monkeypatch, code, remedy):
    def fsync(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match=f"{tmp_path}/a: cannot be written .{os.strerror(code)}.. .*{remedy}"):
        Storage(tmp_path).write("a", b"1")
    assert not list(tmp_path.iterdir())


def test_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken/pairs/a: cannot be written"):
        Storage(tmp_path / "taken/pairs").write("a", b"1")
    assert Storage(tmp_path / "taken/pairs").sizes() == {}


def test_sweep_removes_only_files_of_dead_processes_of_this_machine(storage):
    process = start(os.getpid)
    process.join(60)
    host = socket.gethostname().replace(".", "_")
    dead, own, alive = (f".a.{host}-{pid}.partial" for pid in (process.pid, os.getpid(), os.getppid()))
    elsewhere, shard, hidden = f".a.elsewhere-{process.pid}.partial", f"a.{host}-{process.pid}.partial", ".other"
    for name in (dead, own, alive, elsewhere, shard, hidden):
        storage.write(name, b"1")
    storage.sweep()
    assert set(storage.sizes()) == {alive, elsewhere, shard, hidden}
