#!/usr/bin/env python3
"""Runs in the guest: collectives between hosts over each of the networks, each rank a process of its
own, two of them on each host, all rails in use: no element is wrong. Over verbs not even where queue
pairs break or memory cannot be registered.

    collectives_test.py FOLDER_OF_PROGRAMS verbs|ucx...
"""
import sys

import broken_paths
import hosts

COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "broadcast", "reduce", "all_to_all",
               "gather", "scatter", "sendrecv")
# UCX's RDMA transport needs another one to meet by.
ENVIRONMENTS = {"verbs": {}, "ucx": {"NCCL_NET": "UCX", "UCX_TLS": "rc_verbs,tcp"}}


def main():
    program = f"{sys.argv[1]}/railccl-bench"
    sizes = ["-b", "0", "-e", "300K", "-f", "24", "-n", "1", "-w", "0", "-d", "float,bfloat16"]
    if hosts.EMULATED:  # eight processes would starve each other
        few = ["-b", "4", "-e", "64K", "-f", "128", "-n", "1", "-w", "0"]
        for network in sys.argv[2:]:
            ranks = hosts.Ranks([program, "all_reduce", *few], 1, ENVIRONMENTS[network])
            hosts.verified(*ranks.finish(140), "all_reduce", network)
        return broken_paths.survived(program)
    for network in sys.argv[2:]:
        for collective in COLLECTIVES:
            ranks = hosts.Ranks([program, collective, *sizes], 2, ENVIRONMENTS[network])
            hosts.verified(*ranks.finish(170), collective, network)
    ranks = hosts.Ranks([program, "all_reduce", "-b", "4M", "-e", "4M", "-n", "1", "-w", "0"], 2)
    hosts.verified(*ranks.finish(120), "all_reduce of 4 MiB")
    broken_paths.survived(program)


main()
