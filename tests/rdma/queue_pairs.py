"""Breaks queue pairs of another process, for the tests that run in the guest: it is asked for nothing
and told nothing, as where a device or its firmware gives a queue pair up.

The kernel lets whoever may trace a process have its descriptors (pidfd_getfd), and takes commands
about a device's objects from any process that holds the device's descriptor (RDMA_VERBS_IOCTL).
"""
import ctypes
import errno
import fcntl
import os
import pathlib
import struct

PIDFD_GETFD = 438  # the C library has no function for it before 2.36
VERBS_IOCTL = 0xC0181B01
DRIVER_RXE = 14
MODIFY_QP = 26
STATE_MASK, STATE_ERROR = 1, 6  # IB_QP_STATE, IB_QPS_ERR
HANDLES = 64  # more than a process has objects of one device here


def _set_error_state(descriptor, handle):
    """False when the handle is none of a queue pair."""
    # struct ib_uverbs_modify_qp: two addresses, seven words, two halves, and bytes from the state on.
    command = struct.pack("64x7I2H16B", handle, STATE_MASK, 0, 0, 0, 0, 0, 0, 0, STATE_ERROR,
                          *[0] * 15)
    buffer = ctypes.create_string_buffer(command, len(command))
    attributes = (struct.pack("HHHHQ", 0, len(command), 1, 0, ctypes.addressof(buffer)) +  # CORE_IN
                  struct.pack("HHHHQ", 2, 8, 1, 0, MODIFY_QP))  # WRITE_CMD
    header = struct.pack("HHHHQII", 24 + len(attributes), 0, 0, 2, 0, DRIVER_RXE, 0)
    try:
        fcntl.ioctl(descriptor, VERBS_IOCTL, bytearray(header + attributes))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def kill(pid, device):
    """Puts all queue pairs that the process has on the device into the error state; how many."""
    killed = 0
    process = os.pidfd_open(pid)
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            file = pathlib.Path(os.readlink(link))
        except FileNotFoundError:  # closed since it was listed
            continue
        if not file.name.startswith("uverbs"):
            continue
        if pathlib.Path(f"/sys/class/infiniband_verbs/{file.name}/ibdev").read_text().strip() != device:
            continue
        descriptor = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, int(link.name), 0)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), f"descriptor {link} cannot be had")
        killed += sum(_set_error_state(descriptor, handle) for handle in range(HANDLES))
        os.close(descriptor)
    os.close(process)
    return killed
