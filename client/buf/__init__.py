"""Generated code of the Buf packages that `memoro.v1` refers to."""
