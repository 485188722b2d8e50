"""Generated and hand-written kernels. Nothing here knows an op by name: a program to compile arrives as data.

``codegen`` turns programs into C, compiles it with the system's compiler and keeps the result in the user's cache.
"""

__all__: list[str] = []
