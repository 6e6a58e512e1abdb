#!/usr/bin/env python3
"""Runs in the guest: collectives between hosts over verbs, each rank a process of its own, two of
them on each host, all rails in use: no element is wrong.

    collectives_test.py FOLDER_OF_PROGRAMS
"""
import sys

import hosts

COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "broadcast", "reduce", "all_to_all",
               "gather", "scatter", "sendrecv")


def main():
    program = f"{sys.argv[1]}/railccl-bench"
    sizes = ["-b", "0", "-e", "300K", "-f", "24", "-n", "1", "-w", "0", "-d", "float,bfloat16"]
    if hosts.EMULATED:  # eight processes would starve each other
        few = ["-b", "4", "-e", "64K", "-f", "128", "-n", "1", "-w", "0"]
        hosts.verified(*hosts.Ranks([program, "all_reduce", *few], 1).finish(200), "all_reduce")
        return
    for collective in COLLECTIVES:
        ranks = hosts.Ranks([program, collective, *sizes], 2)
        hosts.verified(*ranks.finish(170), collective)
    ranks = hosts.Ranks([program, "all_reduce", "-b", "4M", "-e", "4M", "-n", "1", "-w", "0"], 2)
    hosts.verified(*ranks.finish(120), "all_reduce of 4 MiB")


main()
