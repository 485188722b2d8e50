"""Generated and hand-written kernels. Nothing here knows an op by name: a program to compile arrives as data.

Empty for now: ``primitives.lowering`` runs every graph by plain torch; the C and Triton emitters come next.
"""

__all__: list[str] = []
