"""Compiles generated Triton for a GPU on a machine that has none, and reads from the machine code what it will need."""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layersearch.errors import KernelError
from layersearch.kernels.codegen._triton_load import interprets, loaded, why_no_triton
from layersearch.kernels.codegen._triton_shapes import Config, Launch, Sizes, default_config, planned
from layersearch.kernels.codegen._triton_words import META
from layersearch.kernels.codegen.program import Program
from layersearch.kernels.codegen.triton import Kernel, TritonSource, triton_source

__all__ = ["Compiled", "build_seconds", "compile_ahead"]

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_TIMEOUT_S = 60
_USUAL = (128, 64, 1024)


@dataclass(frozen=True)
class Compiled:
    """One kernel of a program, by the name of the program and the kind of kernel.

    ``registers`` of a thread; ``spilled_bytes``: of a thread's stack, where registers did not do (both None if
    cuobjdump cannot be run); ``loads``: instructions that read global memory, ``vector_loads``: those of them that
    read 16 bytes.
    """

    program: str
    kind: str
    registers: int | None
    spilled_bytes: int | None
    loads: int
    vector_loads: int


def compile_ahead(
    programs: Mapping[str, Program],
    shape: tuple[int, int, int],
    groups: int,
    *,
    dtype: str = "fp32",
    layout: str = "nchw",
    capability: int = 90,
    config: Config | None = None,
) -> list[Compiled]:
    """Compiles all kernels that ``programs`` launch.

    Args:
        shape: N, C, H·W, which decide on kernels and block sizes.
        groups: of the C channels.
        dtype: of the tensors: ``fp32``, ``bf16`` or ``fp16``.
        layout: ``nchw`` or ``nhwc``.
        capability: of the device; 90 is Hopper.
        config: block sizes of kernels that read the tensor, instead of the defaults.
    Raises: KernelError without Triton, or where it interprets.
    """
    reason = why_no_triton() or ("TRITON_INTERPRET is set; unset it to compile" if interprets() else None)
    if reason is not None:
        raise KernelError(reason)
    n, channels, pixels = shape
    sizes = Sizes(n, channels, pixels, channels // groups, _BYTES[dtype], layout == "nhwc")
    found: list[Compiled] = []
    for name, source in triton_source(programs).items():

        def choose(kernel: Kernel, source: TritonSource = source) -> Config:
            return config if config is not None and kernel.reads else default_config(kernel, source, sizes)

        for made in planned(source, sizes, choose):
            found.append(_report(name, made.kernel.kind, _compile(made, dtype, capability)))
    return found


def build_seconds(programs: Mapping[str, Program], capability: int = 90) -> float:
    """CPU time of the compiler for these programs at usual sizes, compiled where no cache is. Raises: KernelError."""
    from triton import knobs

    before = os.times()
    with knobs.compilation.scope():
        knobs.compilation.always_compile = True
        compile_ahead(programs, _USUAL, 1, capability=capability)
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def _compile(made: Launch, dtype: str, capability: int) -> Mapping[str, Any]:
    """Assembly of a launch by kind, specialised as a launch would be."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    arguments = made.kernel.arguments
    numbers = made.numbers
    signature: dict[str, str] = {}
    constants: dict[tuple[int], object] = {}
    attributes: dict[tuple[int], list[list[object]]] = {}
    for i, word in enumerate(arguments):
        if word in META:
            signature[word], constants[i,] = "constexpr", numbers[word]
        elif word in numbers:
            varies = word.endswith("_units")
            signature[word] = "constexpr" if varies and numbers[word] == 1 else "i32"
            if varies and numbers[word] == 1:
                constants[i,] = 1
            elif varies and numbers[word] % 16 == 0:
                attributes[i,] = [["tt.divisibility", 16]]
        else:
            signature[word] = f"*{dtype}" if word in ("x_ptr", "g_ptr", "out_ptr") else "*fp32"
            attributes[i,] = [["tt.divisibility", 16]]
    text = ASTSource(fn=loaded(made.kernel), signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": made.warps, "enable_fp_fusion": True}
    built = triton.compile(text, target=GPUTarget("cuda", capability, 32), options=options)
    assembly: Mapping[str, Any] = built.asm
    return assembly


def _report(program: str, kind: str, assembly: Mapping[str, Any]) -> Compiled:
    loads = re.findall(r"ld\.global[\w.:]*", assembly["ptx"])
    wide = [word for word in loads if re.search(r"\.v4\.[bf]32|\.v2\.[bf]64|\.v8\.[bf]16", word)]
    registers, spilled = _resources(assembly["cubin"])
    return Compiled(program, kind, registers, spilled, len(loads), len(wide))


def _resources(cubin: bytes) -> tuple[int | None, int | None]:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory(prefix="layersearch-cubin-") as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        try:
            said = subprocess.run(
                [str(tool), "-res-usage", str(path)], capture_output=True, text=True, timeout=_TIMEOUT_S
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return None, None
    found = re.search(r"REG:(\d+) STACK:(\d+).*?LOCAL:(\d+)", said)
    return (None, None) if found is None else (int(found[1]), int(found[2]) + int(found[3]))
