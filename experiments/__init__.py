"""Experiments of many training runs: cells, tables and figures."""
