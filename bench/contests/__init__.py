"""Contests: all sides of one layer or network, timed in turn and checked against float64."""
