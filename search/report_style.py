"""How a report looks, on light and dark screens and on paper."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --pale: #5f6b7a; --line: #d8dde4; --paper: #ffffff; --raised: #f5f7f9;
  --evolved: #1f5fae; --random: #8a94a3; --seed: #b3541e; --front: #1f5fae; --steps: #1d2530; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --pale: #9aa6b5; --line: #353d49; --paper: #14181f;
  --raised: #1c222b; --evolved: #6ea8ee; --random: #7d8794; --seed: #e0894f; --front: #6ea8ee; --steps: #e4e8ee; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 24px 60px; max-width: 1080px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 26px; } h2 { margin: 40px 0 10px; font-size: 18px; }
p { margin: 6px 0; } .pale, .tick, .name, figcaption { color: var(--pale); }
pre, code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre { margin: 8px 0; padding: 10px 14px; background: var(--raised); border-radius: 6px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 20px; } figure { margin: 0; flex: 1 1 460px; max-width: 680px; }
figcaption { font-size: 13px; } svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: 6px 0 18px; font-size: 14px; }
caption { text-align: left; padding: 6px 0; color: var(--pale); }
th { text-align: left; font-weight: 600; border-bottom: 1px solid var(--line); }
th, td { padding: 3px 14px 3px 0; vertical-align: top; } td.right, th.right { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; } td.formula { font: 12px/1.5 ui-monospace, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; min-width: 320px; }
tr.bold td { font-weight: 600; } tr.dim td { color: var(--pale); }
summary { cursor: pointer; margin: 8px 0; } .key { display: inline-block; width: 9px; height: 9px; border-radius: 5px;
  margin: 0 4px 0 12px; } .key:first-child { margin-left: 0; }
text { font-size: 12px; fill: var(--pale); } .grid { stroke: var(--line); } .axis { stroke: var(--pale); fill: none; }
.level { stroke: var(--pale); stroke-dasharray: 4 4; } .steps { stroke: var(--steps); stroke-width: 1.6; fill: none; }
circle { opacity: .75; } circle:hover { opacity: 1; stroke: var(--ink); }
.random { fill: var(--random); background: var(--random); }
.evolved, .suggested { fill: var(--evolved); background: var(--evolved); }
.seed { fill: var(--seed); background: var(--seed); } .other { fill: var(--random); background: var(--random); }
.front { fill: var(--front); background: var(--front); } .baseline { fill: var(--ink); background: var(--ink); }
@media print { body { max-width: none; } details > * { display: block; } }
"""
