"""Click-through models, one file each; all take gates. They are here, as anchor networks are in the image task, because
they know the fields and the history of a row of data; the layers they are made of know neither (``primitives.ctr``)."""

__all__: list[str] = []
