"""Kernels as machine code: compiled by LLVM, and kept on disk for the next process.

A file is named for all that its code depends on: the kernel's text, the compiler's version, and the
processor. It is written beside its place and then moved there, so that no process sees half of it;
and it begins with a digest, so that what has been damaged is compiled again.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

FOLDER = "PENALIZE_CACHE_DIR"
"""The environment variable for another folder than that of the user's caches."""

Function = Callable[..., None]
"""A kernel. While it runs it holds no lock of Python's."""


class Native(NamedTuple):
    """A kernel that can be called."""

    call: Function
    """Takes the address of some work, as :mod:`penalize.torch.kernels.printer` has it."""

    address: int
    """Where it lies itself."""

    note: str
    """Why it could not be kept on disk; else empty."""


@cache
def why_not_here() -> str:
    """Why nothing can be compiled; empty where it can."""
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is not installed: pip install 'penalize[fast]'"
    try:
        _compiler()
    except Exception as error:  # noqa: BLE001  # whatever it is, there are other paths
        return f"llvmlite does not work here: {error}"
    return ""


def why_not_of(stored: str) -> str:
    """Why weights of a type cannot be read here; empty where they can."""
    known = _compiler().converts_half
    return "this processor converts no float16" if stored == "half" and not known else ""


_lock = Lock()
_made: dict[str, Native] = {}
_alive: list[Any] = []
"""What the machine code belongs to."""


def _after_fork() -> None:
    """A child has one thread: what others were about goes on nowhere."""
    global _lock  # noqa: PLW0603
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def native(text: str) -> Native:
    """The kernel with this text, compiled, or read from disk.

    Raises:
        Exception: LLVM cannot compile it.
    """
    found = _made.get(text)
    if found is None:
        with _lock:
            found = _made.get(text)
            if found is None:
                found = _made[text] = _load(text)
    return found


def _load(text: str) -> Native:
    compiler = _compiler()
    name = hashlib.sha256(f"{compiler.key}\n{text}".encode()).hexdigest()[:40] + ".o"
    folder, note = folder_of_kernels()
    code = _read(folder / name) if folder else None
    if code is None:
        code = compiler.compile(text)
        if folder is not None:
            note = _why_not_written(folder / name, code)
    return Native(*compiler.link(code), note)


class _Compiler:
    """LLVM for this processor."""

    def __init__(self) -> None:
        import llvmlite
        import llvmlite.binding as llvm

        self._llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        triple = llvm.get_process_triple()
        is_intel = triple.startswith(("x86", "i386", "i686"))
        self.converts_half = not is_intel or "+f16c" in features
        """Whether there are instructions for it: what LLVM would call instead may not be there."""

        self._options = {"cpu": cpu, "features": features, "opt": 3, "reloc": "pic"}
        self._target = llvm.Target.from_triple(triple)
        self.key = "\n".join(
            [llvmlite.__version__, str(llvm.llvm_version_info), triple, cpu, features]
        )

    def _machine(self) -> Any:
        return self._target.create_target_machine(**self._options, codemodel="jitdefault")

    def compile(self, text: str) -> bytes:
        """The object file of a kernel."""
        llvm, machine = self._llvm, self._machine()
        module = llvm.parse_assembly(text)
        module.verify()
        options = llvm.PipelineTuningOptions(speed_level=3)
        options.loop_vectorization = options.slp_vectorization = False  # it has its vectors
        options.loop_unrolling = True
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
        code: bytes = machine.emit_object(module)
        return code

    def link(self, code: bytes) -> tuple[Function, int]:
        """The kernel of an object file, and its address."""
        llvm = self._llvm
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _alive.append(engine)
        address: int = engine.get_function_address("kernel")
        return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address), address


@cache
def _compiler() -> _Compiler:
    return _Compiler()


# --- on disk --------------------------------------------------------------------------------------


_ANEW = "it is compiled anew in each process"


def folder_of_kernels() -> tuple[Path | None, str]:
    """Where kernels are kept; or None, and why they are not."""
    try:
        folder = _folder()
    except RuntimeError as error:  # a user without a home directory
        return None, f"{_ANEW}: {error}; {FOLDER} may name a folder"
    if not folder.is_absolute():
        return None, f"{_ANEW}: the folder {folder} is no absolute path"
    try:
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = [each.stat() for each in (folder, *folder.parents)]
    except OSError as error:
        return None, f"{_ANEW}: {folder}: {error.strerror}"
    for path, status in zip((folder, *folder.parents), held, strict=True):
        # Whoever can write there, or put another in its place, could have us run their code.
        if not (_is_mine(status) if path == folder else _is_kept(status)):
            return None, f"{_ANEW}: others can write to {path}"
    return folder, ""


def _is_mine(status: os.stat_result) -> bool:
    """Whether nobody else can write."""
    return not hasattr(os, "getuid") or (
        status.st_uid == os.getuid() and not status.st_mode & 0o022
    )


def _is_kept(status: os.stat_result) -> bool:
    """Whether nobody else but the administrator can move what this user has in a folder."""
    if not hasattr(os, "getuid"):
        return True
    shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    return not shared and status.st_uid in (0, os.getuid())


def _folder() -> Path:
    chosen = os.environ.get(FOLDER)
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        given = os.environ.get("XDG_CACHE_HOME", "")
        base = given if given.startswith("/") else Path.home() / ".cache"
    return Path(base) / "penalize" / "kernels"


def _read(path: Path) -> bytes | None:
    """The code in a file of ours; None where there is none, or not what was written."""
    try:
        with path.open("rb") as file:
            held = file.read() if _is_mine(os.fstat(file.fileno())) else b""
    except OSError:
        return None
    digest, code = held[:32], held[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _why_not_written(path: Path, code: bytes) -> str:
    """Why it could not be kept; empty where it was."""
    try:
        number, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        return f"{_ANEW}: {path.parent}: {error.strerror}"
    return ""
