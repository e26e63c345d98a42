"""What a run does when it is killed, stopped, cut off from power or out of disk, and when its files are damaged.

Each scenario ends the same way: the run is gone on with, and leaves the bytes of one that nothing happened to, times
aside. `make test` draws a few instants, the same at each run; `make faults` draws many, others each time, and prints
the seed that draws them again.
"""
