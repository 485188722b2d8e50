"""C for a program: one function per memory layout, for all shapes; float32, one thread, equal bits for equal input.

Small values lie in two arrays: ``R``, the results, and ``W``, the workspace of one call. A pass that sums goes through
a few thousand elements at a time, of a plane (NCHW) or rows of pixels (channels_last), so that they stay in the first
cache for the second, centred sweep, and no sum runs over many thousand terms.
"""

from collections.abc import Iterable, Mapping

from layersearch.kernels.codegen._c_prelude import EXPRESSIONS, PRELUDE, SUMS
from layersearch.kernels.codegen._c_small import Names, Storage, small_function
from layersearch.kernels.codegen.program import INSTRUCTIONS, Pass, Program

__all__ = ["CALL", "EMITTER", "LAYOUTS", "c_source"]

EMITTER = "c/3"
"""Version of the emitter, part of every cache key."""

LAYOUTS = ("nchw", "nhwc")

_BLOCK = 256
"""Channels whose sums are kept on the stack at a time."""
_ROW = 128
"""Few channels: pixels are taken together until a row has about this many elements, which keeps the inner loop long."""
_TILE = 4096
"""Elements of each tensor that are summed at a time: x, g and, channels_last, the sums fit a first-level cache."""

_TYPES = (
    "const float *restrict x, const float *restrict g, const float *const *restrict P, "
    "const float *restrict given, float *restrict out, float *restrict R, float *restrict W, "
    "long N, long C, long S, long G"
)
_GIVEN = "x, g, P, given, out, R, W, N, C, S, G"
CALL = "5P5ld"
"""Members of ``call`` in the prelude, as for ``struct``. Behind them lie the addresses of running buffers, one for each
tracked result and 0 for one that is to stay, then those of the inputs."""
_UNPACK = """\
    const float *const x = a->x, *const g = a->g, *const given = a->given;
    float *const out = a->out, *const R = a->results, *const *const B = (float *const *)(a + 1);
    const float *const *const P = (const float *const *)B + {n_tracked};
    const long N = a->n, C = a->c, S = a->s, G = a->groups, NC = N * C;
    float *const W = workspace({work}, a->fills);
    if (W == 0) return 1;
"""


def c_source(programs: Mapping[str, Program]) -> str:
    """One translation unit for all ``programs``, named by identifiers: functions ``<program>_<layout>``.

    They take the address of a ``call``, and return 0, or 1 if there is no memory for their workspace.
    """
    parts: list[str] = []
    for name, program in programs.items():
        if not name.isidentifier():
            raise ValueError(f"a program is named by an identifier, got {name!r}")
        parts += _Function(name, program).write()
    used = [text for name, text in SUMS.items() if any(f" {name}(" in part for part in parts)]
    return "\n".join([PRELUDE, *used, *parts]) + "\n"


class _Function:
    """Writes one program in both layouts."""

    def __init__(self, name: str, program: Program) -> None:
        self.name, self.program = name, program
        self.storage = Storage(program)
        self.names = Names(program, self.storage)

    def write(self) -> list[str]:
        parts: list[str] = []
        calls: dict[str, list[str]] = {layout: [] for layout in LAYOUTS}
        last = len(self.program.passes) - 1
        for k, step in enumerate(self.program.passes):
            small = small_function(self.names, k, copies=k == last)
            if small:
                head = f"{self.name}_small{k}"
                parts.append(f"PASS {head}({_TYPES}) {{\n    const long NC = N * C;\n{small}}}\n")
                for body in calls.values():
                    body.append(f"    {head}({_GIVEN});\n")
            if step.sums or step.centred or k == last:
                for layout, body in calls.items():
                    head = f"{self.name}_{layout}{k}"
                    inner = self._nchw(step, k == last) if layout == "nchw" else self._nhwc(step, k == last)
                    parts.append(f"PASS {head}({_TYPES}) {{\n    const long NC = N * C;\n{inner}}}\n")
                    body.append(f"    {head}({_GIVEN});\n")
        places = zip(self.storage.work.total, ("NC", "C", "N", "1"), strict=True)
        work = " + ".join(f"{count} * {size}" for count, size in places)
        head = _UNPACK.format(n_tracked=len(self.program.tracked), work=work)
        tail = ""
        for k, i in enumerate(self.program.tracked):
            size = "C" if self.program.results[i].extent.c else "1"
            tail += f"    move(B[{k}], {self.names.result(i)}, {size}, a->momentum);\n"
        for layout, body in calls.items():
            inner = f"{head}{''.join(body)}{tail}    free(W);\n    return 0;\n"
            parts.append(f"int {self.name}_{layout}(const call *a) {{\n{inner}}}\n")
        return parts

    def _needed(self, targets: Iterable[int]) -> tuple[list[int], list[int]]:
        """Full-size values that ``targets`` need, in order, and the small values that those read."""
        statements = self.program.statements
        full: set[int] = set()
        small: set[int] = set()
        waiting = list(targets)
        while waiting:
            i = waiting.pop()
            if not statements[i].extent.s:
                small.add(i)
            elif i not in full:
                full.add(i)
                waiting += statements[i].args
        return sorted(full), sorted(small)

    def _elementwise(self, full: list[int], x: str, g: str) -> str:
        """Statements for the full-size values at one element."""
        text = ""
        for i in full:
            s = self.program.statements[i]
            if s.code in INSTRUCTIONS:
                value = EXPRESSIONS[s.code].format(*(self.names.value(j) for j in s.args))
            else:
                value = x if s.code == "x" else g
            text += f"const float v{i} = {value}; "
        return text

    def _summands(self, step: Pass) -> list[int]:
        """Full-size values whose plane sums the pass takes, those of centred sums included."""
        statements = self.program.statements
        return sorted({statements[i].args[0] for i in (*step.sums, *step.centred)})

    def _nchw(self, step: Pass, is_last: bool) -> str:
        statements, output = self.program.statements, self.program.output
        sums = self._summands(step)
        centred = [statements[i].args[0] for i in step.centred]
        full, small = self._needed([*sums, *([output] if is_last else [])])
        reads = {statements[i].code for i in full}
        body = self._elementwise(full, "xp[i]", "gp[i]") + "".join(f"a{u} += v{u}; " for u in sums)
        if is_last:
            body += f"op[i] = {self.names.value(output)}; "
        size = _TILE if sums else "S"
        lines = [
            "for (long n = 0; n < N; n++) for (long c = 0; c < C; c++) {",
            "    const long p = n * C + c;",
            *(f"    const float *restrict {t}p = {t} + p * S;" for t in ("x", "g") if t in reads),
            *(["    float *restrict op = out + p * S;"] if is_last else []),
            *(f"    const float v{i} = {self.names.read(i)};" for i in small if self.names.is_loaded(i)),
            *(f"    double t{u} = 0.0;" for u in sums),
            *(f"    double q{u} = 0.0;" for u in centred),
            f"    for (long s0 = 0; s0 < S; s0 += {size}) {{",
            f"        const long s1 = S - s0 < {size} ? S : s0 + {size};",
            *(f"        float a{u} = 0.0f;" for u in sums),
            f"        IVDEP for (long i = s0; i < s1; i++) {{ {body}}}",
        ]
        if centred:
            full, _ = self._needed(centred)
            body = self._elementwise(full, "xp[i]", "gp[i]")
            body += "".join(f"const float d{u} = v{u} - m{u}; b{u} += d{u} * d{u}; " for u in centred)
            merge = "const double e{0} = m{0} - t{0} * earlier; q{0} += b{0} + e{0} * e{0} * weight;"
            lines += [
                *(f"        const float m{u} = a{u} / (float)(s1 - s0); float b{u} = 0.0f;" for u in centred),
                f"        IVDEP for (long i = s0; i < s1; i++) {{ {body}}}",
                "        const double earlier = s0 ? 1.0 / (double)s0 : 0.0;",
                "        const double weight = (double)s0 * (double)(s1 - s0) / (double)s1;",
                *(f"        {merge.format(u)}" for u in centred),
            ]
        lines += [*(f"        t{u} += a{u};" for u in sums), "    }"]
        for i in (*step.sums, *step.centred):
            source = f"{'t' if i in step.sums else 'q'}{statements[i].args[0]}"
            lines.append(f"    {self.names.read(i)} = (float){source};")
        lines.append("}")
        return "".join(f"    {line}\n" for line in lines)

    def _nhwc(self, step: Pass, is_last: bool) -> str:
        statements, output = self.program.statements, self.program.output
        sums = self._summands(step)
        centred = [statements[i].args[0] for i in step.centred]
        full, small = self._needed([*sums, *([output] if is_last else [])])
        loads, outer, inner = self._row_values(small)
        body = self._elementwise(full, "xp[j]", "gp[j]") + "".join(f"a{u}[j] += v{u}; " for u in sums)
        if is_last:
            body += f"op[j] = {self.names.value(output)}; "
        over = "for (long j = 0; j < k; j++)"
        lines = [
            f"for (long c0 = 0; c0 < C; c0 += {_BLOCK}) {{",
            f"    const long k = C - c0 < {_BLOCK} ? C - c0 : {_BLOCK};",
            f"    const long r = C < {_ROW} ? {_ROW} / C : 1, rows = {_TILE} / (r * k) * r;",
            *(f"    {line}" for line in outer),
            "    for (long n = 0; n < N; n++) {",
            *(f"    {line}" for line in inner),
            *(f"    float t{u}[{_BLOCK}] = {{0}};" for u in sums),
            *(f"    float q{u}[{_BLOCK}] = {{0}};" for u in centred),
            "    for (long s0 = 0; s0 < S; s0 += rows) {",
            "        const long s1 = S - s0 < rows ? S : s0 + rows;",
            *(f"        float a{u}[{_BLOCK}]; memset(a{u}, 0, r * k * sizeof(float));" for u in sums),
            *self._rows(full, loads + body, writes=is_last),
            *(f"        fold(a{u}, r, k);" for u in sums),
        ]
        if centred:
            full, small = self._needed(centred)
            loads, _, _ = self._row_values(small)
            body = self._elementwise(full, "xp[j]", "gp[j]")
            body += "".join(f"const float d{u} = v{u} - m{u}[j]; b{u}[j] += d{u} * d{u}; " for u in centred)
            means = "".join(f"m{u}[j] = a{u}[j] / (float)(s1 - s0); " for u in centred)
            merge = "".join(
                f"const float e{u} = m{u}[j] - t{u}[j] * earlier; q{u}[j] += b{u}[j] + e{u} * e{u} * weight; "
                for u in centred
            )
            lines += [
                *(f"        float m{u}[{_BLOCK}], b{u}[{_BLOCK}];" for u in centred),
                *(f"        memset(b{u}, 0, r * k * sizeof(float));" for u in centred),
                f"        {over} {{ {means}}}",
                *(f"        spread(m{u}, m{u}, r, k);" for u in centred),
                *self._rows(full, loads + body, writes=False),
                *(f"        fold(b{u}, r, k);" for u in centred),
                "        const float earlier = s0 ? 1.0f / (float)s0 : 0.0f;",
                "        const float weight = (float)((double)s0 * (double)(s1 - s0) / (double)s1);",
                f"        IVDEP {over} {{ {merge}}}",
            ]
        if sums:
            lines.append(f"        IVDEP {over} {{ {''.join(f't{u}[j] += a{u}[j]; ' for u in sums)}}}")
        lines.append("    }")
        for i in (*step.sums, *step.centred):
            source = f"{'t' if i in step.sums else 'q'}{statements[i].args[0]}"
            lines.append(f"    memcpy(({self.names.pointer(i)}) + n * C + c0, {source}, k * sizeof(float));")
        lines.append("}}")
        return "".join(f"    {line}\n" for line in lines)

    def _rows(self, full: list[int], body: str, writes: bool) -> list[str]:
        """The loop over pixels and channels of one block of rows."""
        reads = {self.program.statements[i].code for i in full}
        start = "(n * S + s) * C + c0"
        lines = [
            "        for (long s = s0; s < s1; s += r) {",
            "            const long m = (s1 - s < r ? s1 - s : r) * k;",
        ]
        lines += [f"            const float *restrict {t}p = {t} + {start};" for t in ("x", "g") if t in reads]
        if writes:
            lines.append(f"            float *restrict op = out + {start};")
        lines += [f"            IVDEP for (long j = 0; j < m; j++) {{ {body}}}", "        }"]
        return lines

    def _row_values(self, small: list[int]) -> tuple[str, list[str], list[str]]:
        """Loads of small values in the loop over channels; what is set up for all samples before it, and for each."""
        loads = ""
        once: list[str] = []
        each: list[str] = []
        for i in small:
            if not self.names.is_loaded(i):
                continue
            over_n, over_c = self.program.statements[i].extent.cells
            before = each if over_n else once
            if over_c:
                start = "n * C + c0" if over_n else "c0"
                before.append(f"float h{i}[{_ROW}];")
                before.append(f"const float *restrict w{i} = spread(h{i}, ({self.names.pointer(i)}) + {start}, r, k);")
                loads += f"const float v{i} = w{i}[j]; "
            else:
                before.append(f"const float v{i} = {self.names.read(i)};")
        return loads, once, each
