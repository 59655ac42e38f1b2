"""Generated from `protos/buf/validate` by `make proto`: the rules that fields of `memoro.v1` carry."""
