"""Building kernels: the cache by content, several processes at once, and no compiler at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from unrolled.kernels import compiler as module
from unrolled.kernels.compiler import Compiler, NoCompiler, cache_folder, system_compiler

SOURCE = 'extern "C" int answer() { return 42; }'


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(system_compiler().command, tmp_path / "kernels")


def test_what_is_built_can_be_called(compiler: Compiler) -> None:
    assert compiler.load(SOURCE).answer() == 42


def test_the_same_source_is_built_once(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.load(SOURCE)
    built = sorted(compiler.folder.iterdir())
    assert [path.suffix for path in built] == [".cpp", ".so"]
    again = Compiler(compiler.command, compiler.folder)
    monkeypatch.setattr(again, "_build", lambda *_: pytest.fail("the cache was not used"))
    assert again.load(SOURCE).answer() == 42
    with pytest.raises(pytest.fail.Exception, match="the cache was not used"):
        again.load(SOURCE.replace("42", "43"))


def test_what_decides_is_part_of_the_name(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.load(SOURCE)
    Compiler((*compiler.command, "-DOTHER"), compiler.folder).load(SOURCE)
    assert len(list(compiler.folder.glob("*.so"))) == 2
    monkeypatch.setattr(module, "processor", lambda: "another processor")
    Compiler(compiler.command, compiler.folder).load(SOURCE)
    assert len(list(compiler.folder.glob("*.so"))) == 3


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor is asked otherwise")
def test_no_process_is_started_to_know_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    assert "flags" in module.processor() or "Features" in module.processor()


def test_a_damaged_library_is_built_again(compiler: Compiler) -> None:
    compiler.load(SOURCE)
    (path,) = compiler.folder.glob("*.so")
    path.unlink()  # not overwritten: the one that is loaded lies in the same memory
    path.write_bytes(b"not a library")
    assert Compiler(compiler.command, compiler.folder).load(SOURCE).answer() == 42


def test_processes_that_build_the_same_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from unrolled.kernels.compiler import Compiler, system_compiler\n"
        f"library = Compiler(system_compiler().command, Path(sys.argv[1])).load({SOURCE!r})\nassert library.answer() == 42"
    )

    def start(_: int) -> int:
        return subprocess.run([sys.executable, "-c", program, str(tmp_path / "kernels")], check=False).returncode

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, range(4))) == [0, 0, 0, 0]
    assert sorted(path.suffix for path in (tmp_path / "kernels").iterdir()) == [".cpp", ".so"]


def test_no_compiler_is_said_clearly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    system_compiler.cache_clear()
    try:
        with pytest.raises(NoCompiler, match="no C\\+\\+ compiler was found"):
            system_compiler()
        monkeypatch.setenv("CXX", "not-a-compiler")
        with pytest.raises(NoCompiler, match="`not-a-compiler` cannot be called"):
            system_compiler().load(SOURCE)
    finally:
        system_compiler.cache_clear()


def test_source_that_does_not_compile_says_why(compiler: Compiler) -> None:
    with pytest.raises(NoCompiler, match="error: .*nonsense"):
        compiler.load("int nonsense = nonsense_too;")
    assert list(compiler.folder.iterdir()) == []


def test_flags_are_left_out_only_where_the_compiler_does_not_know_them(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHOICES", (("-DWISH",), ()))
    with pytest.raises(NoCompiler, match="not with it"):
        compiler.load(f"#ifdef WISH\n#error not with it\n#endif\n{SOURCE}")
    monkeypatch.setattr(module, "CHOICES", (("-no-such-flag",), ()))
    assert compiler.load(f"// again\n{SOURCE}").answer() == 42


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unrolled" / "kernels"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = cache_folder()
    assert folder.is_dir() and tmp_path not in folder.parents


@pytest.mark.parametrize("left", [0, 100, 9000])
def test_half_a_library_is_built_again(compiler: Compiler, left: int) -> None:
    compiler.load(SOURCE)
    (path,) = compiler.folder.glob("*.so")
    whole = path.read_bytes()
    assert len(whole) > left
    path.unlink()
    path.write_bytes(whole[:left])
    assert Compiler(compiler.command, compiler.folder).load(SOURCE).answer() == 42
    (path,) = compiler.folder.glob("*.so")
    assert path.stat().st_size == len(whole)


def test_what_a_killed_process_left_is_removed(compiler: Compiler) -> None:
    compiler.folder.mkdir()
    old, new = compiler.folder / f"{module.UNFINISHED}old", compiler.folder / f"{module.UNFINISHED}new"
    for room in (old, new):
        room.mkdir()
        (room / "kernel.so").write_bytes(b"half")
    os.utime(old, (0, 0))
    compiler.load(SOURCE)
    assert not old.exists() and new.exists()


def test_a_process_killed_while_it_compiles_leaves_nothing_that_is_loaded(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text(
        '#!/bin/sh\ncase "$*" in *version*) exit 0;; esac\nfor last; do :; done\necho half > "$last"\ntouch "$0.began"\nsleep 60\n'
    )
    slow.chmod(0o755)
    folder = tmp_path / "kernels"
    program = (
        "import sys; from pathlib import Path; from unrolled.kernels.compiler import Compiler\n"
        "Compiler((sys.argv[1],), Path(sys.argv[2])).load('')"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(slow), str(folder)], start_new_session=True)
    while not (tmp_path / "slow.began").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [path.name.startswith(module.UNFINISHED) for path in folder.iterdir()] == [True]
    assert Compiler(system_compiler().command, folder).load(SOURCE).answer() == 42


def test_a_folder_that_cannot_be_written_to_is_no_end(compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_own_folder", lambda: str(tmp_path / "own"))
    compiler.folder.write_text("a file, where the folder should be")
    assert compiler.load(SOURCE).answer() == 42
    assert list((tmp_path / "own").glob("*.so"))
    (tmp_path / "other").write_text("")
    monkeypatch.setattr(module, "_own_folder", lambda: str(tmp_path / "other"))
    with pytest.raises(NoCompiler, match="a kernel cannot be written to .*kernels"):
        Compiler(compiler.command, compiler.folder).load(SOURCE)


def test_a_full_disk_is_no_end(compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_own_folder", lambda: str(tmp_path / "own"))
    build = tempfile.TemporaryDirectory

    def full(*arguments: Any, **keywords: Any) -> Any:
        if Path(keywords["dir"]) == compiler.folder:
            raise OSError(errno.ENOSPC, "No space left on device")
        return build(*arguments, **keywords)

    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", full)
    assert compiler.load(SOURCE).answer() == 42


def test_nobodys_home_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert cache_folder().is_dir()
