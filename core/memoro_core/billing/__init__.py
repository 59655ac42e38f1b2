"""Prepaid credits: the ledger, holds, prices, usage, and daily budgets."""
