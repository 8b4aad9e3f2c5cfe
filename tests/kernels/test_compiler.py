"""Building kernels: the cache by content, several processes at once, and no compiler at all."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unrolled" / "kernels"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = cache_folder()
    assert folder.is_dir() and tmp_path not in folder.parents
