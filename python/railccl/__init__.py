"""railccl for Python: collectives on anything with a buffer (NumPy arrays, array.array, bytearray,
memoryview), under the names of mpi4py's upper-case methods. Needs no other package: the library is
loaded by ctypes.

    import numpy, railccl
    comm = railccl.init()            # RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, as torchrun sets
    data = numpy.full(1000, comm.rank, "float32")
    comm.Allreduce(data)             # in place; or Allreduce(data, result)

Buffers must be C-contiguous; the datatype is the buffer's own, or the second of a pair:
`(raw, "bfloat16")`. Calls return when they are done. A failure raises railccl.Error with the
library's account of it. One thread at a time may use a communicator, but for abort(), which any
thread may call; other Python threads run while a call waits.
"""
import ctypes
import os
import pathlib
import threading
from ctypes import byref, c_char_p, c_int, c_size_t, c_ssize_t, c_void_p

__all__ = ["AVG", "Communicator", "Error", "Group", "MAX", "MIN", "PROD", "SUM", "init", "init_all",
           "init_rank", "load", "unique_id", "version"]

SUM, PROD, MAX, MIN, AVG = range(5)

# name: (ncclDataType_t, bytes of one)
_TYPES = {"int8": (0, 1), "uint8": (1, 1), "int32": (2, 4), "uint32": (3, 4), "int64": (4, 8),
          "uint64": (5, 8), "float16": (6, 2), "float32": (7, 4), "float64": (8, 8),
          "bfloat16": (9, 2), "float8e4m3": (10, 1), "float8e5m2": (11, 1)}
_SIGNED = {1: "int8", 4: "int32", 8: "int64"}
_FLOATS = {"e": "float16", "f": "float32", "d": "float64"}


class Error(RuntimeError):
    """What the library answered: `code` is its ncclResult_t, the text names the cause."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


class _UniqueId(ctypes.Structure):
    _fields_ = [("internal", ctypes.c_byte * 128)]


class _PyBuffer(ctypes.Structure):
    """Py_buffer of the stable ABI (Python's documentation, "Buffer Protocol")."""
    _fields_ = [("buf", c_void_p), ("obj", ctypes.py_object), ("len", c_ssize_t),
                ("itemsize", c_ssize_t), ("readonly", c_int), ("ndim", c_int),
                ("format", c_char_p), ("shape", c_void_p), ("strides", c_void_p),
                ("suboffsets", c_void_p), ("internal", c_void_p)]


_WRITABLE, _FORMAT, _C_CONTIGUOUS = 0x1, 0x4, 0x38
_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_PyBuffer), c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_PyBuffer)]
_release_buffer.restype = None


def _type_of_format(text, size):
    code = text.lstrip("@=<") or "B"
    if code in _FLOATS:
        return _FLOATS[code]
    if code in ("b", "i", "l", "q", "n") and size in _SIGNED:
        return _SIGNED[size]
    if code in ("B", "I", "L", "Q", "N", "c") and size in _SIGNED:
        return "u" + _SIGNED[size]
    raise TypeError(f"no datatype of railccl for elements of format {text!r}: "
                    'give a pair (buffer, "name")')


class _Groups(threading.local):
    """The open groups of this thread, and the buffers of what was recorded in them."""

    def __init__(self):
        super().__init__()
        self.depth = 0
        self.held = []


_group = _Groups()


class _Buffer:
    """The address, length and datatype of an object's memory, held while the block runs; inside a
    group, until the group has ended."""

    def __init__(self, what, writable):
        self._named = None
        if isinstance(what, tuple):
            what, self._named = what
            if self._named not in _TYPES:
                raise TypeError(f"datatype {self._named!r} is none of {', '.join(_TYPES)}")
        self._object = what
        self._flags = _C_CONTIGUOUS | _FORMAT | (_WRITABLE if writable else 0)
        self._view = _PyBuffer()

    def __enter__(self):
        _get_buffer(self._object, byref(self._view), self._flags)
        try:
            name = self._named or _type_of_format((self._view.format or b"B").decode(),
                                                  self._view.itemsize)
            self.type, size = _TYPES[name]
            if self._view.len % size:
                raise TypeError(f"{self._view.len} bytes are no whole number of {name}")
        except TypeError:
            _release_buffer(byref(self._view))
            raise
        self.count = self._view.len // size
        self.address = self._view.buf
        return self

    def __exit__(self, kind, *_):
        if kind is None and _group.depth:
            _group.held.append(self)  # the call is only recorded
        else:
            self.release()

    def release(self):
        _release_buffer(byref(self._view))


_FUNCTIONS = {
    "ncclGetErrorString": [c_int], "ncclGetLastError": [c_void_p], "ncclGetVersion": [c_void_p],
    "ncclGetUniqueId": [c_void_p],
    "railcclGetUniqueIdAt": [c_char_p, c_int, c_char_p, c_void_p],
    "ncclCommInitRank": [c_void_p, c_int, _UniqueId, c_int],
    "ncclCommInitAll": [c_void_p, c_int, c_void_p],
    "ncclCommSplit": [c_void_p, c_int, c_int, c_void_p, c_void_p],
    "ncclCommDestroy": [c_void_p], "ncclCommAbort": [c_void_p],
    "ncclCommCount": [c_void_p, c_void_p], "ncclCommUserRank": [c_void_p, c_void_p],
    "ncclAllReduce": [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p],
    "ncclReduce": [c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_void_p, c_void_p],
    "ncclReduceScatter": [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p],
    "ncclAllGather": [c_void_p, c_void_p, c_size_t, c_int, c_void_p, c_void_p],
    "ncclBroadcast": [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p],
    "ncclAlltoAll": [c_void_p, c_void_p, c_size_t, c_int, c_void_p, c_void_p],
    "ncclGather": [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p],
    "ncclScatter": [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p],
    "ncclSend": [c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p],
    "ncclRecv": [c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p],
    "ncclGroupStart": [], "ncclGroupEnd": [],
}
_TEXTS = ("ncclGetErrorString", "ncclGetLastError")  # all others answer an ncclResult_t
_library = None


def load(path=None):
    """Loads the library from `path`, or from where it was built or installed with this package, or
    from where the system's loader finds it. Done by the first call that needs it."""
    global _library
    here = pathlib.Path(__file__).resolve()
    folders = [here.parents[2] / "build" / "lib", here.parents[3],
               *here.parents[3].glob("*-linux-gnu*")]
    places = [path] if path else [place for folder in folders
                                  for place in sorted(folder.glob("librailccl.so.*"))]
    places += [] if path else ["librailccl.so.0"]
    failures = []
    for place in places:
        try:
            library = ctypes.CDLL(str(place))
        except OSError as failure:
            failures.append(str(failure))
            continue
        for name, arguments in _FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = c_char_p if name in _TEXTS else c_int
        _library = library
        return library
    raise OSError("librailccl.so is not found: " + "; ".join(failures))


def _call(name, *arguments, comm=None):
    library = _library or load()
    code = getattr(library, name)(*arguments)
    if code != 0:
        text = library.ncclGetErrorString(code).decode()
        detail = (library.ncclGetLastError(comm) or b"").decode(errors="replace")
        raise Error(code, f"{name}: {text}" + (f": {detail}" if detail else ""))


def version():
    """The version of NCCL's interface that the library implements, for example (2, 28, 9)."""
    number = c_int()
    _call("ncclGetVersion", byref(number))
    return number.value // 10000, number.value // 100 % 100, number.value % 100


def unique_id():
    """A new meeting's id, 128 bytes, for one rank to make and hand to all others."""
    made = _UniqueId()
    _call("ncclGetUniqueId", byref(made))
    return bytes(made)


def init_rank(size, meeting, rank):
    """Meets the other ranks that came with the same id; returns when all `size` are there."""
    if len(meeting) != ctypes.sizeof(_UniqueId):
        raise ValueError(f"a meeting's id has {ctypes.sizeof(_UniqueId)} bytes, not {len(meeting)}")
    comm = c_void_p()
    _call("ncclCommInitRank", byref(comm), size, _UniqueId.from_buffer_copy(meeting), rank)
    return Communicator(comm.value)


def init_all(size):
    """The communicators of `size` ranks of this process, for threads."""
    comms = (c_void_p * size)()
    _call("ncclCommInitAll", comms, size, None)
    return [Communicator(comm) for comm in comms]


def init(environment=None):
    """Meets the ranks that torchrun, or a script like it, has started: RANK, WORLD_SIZE, MASTER_ADDR
    and MASTER_PORT. All processes see the same free port."""
    environment = os.environ if environment is None else environment
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
               if name not in environment]
    if missing:
        raise ValueError(f"{', '.join(missing)} not set: start the processes by torchrun, or "
                         "hand around railccl.unique_id() and call railccl.init_rank()")
    numbers = {}
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        try:
            numbers[name] = int(environment[name])
        except ValueError:
            raise ValueError(f"{name} is {environment[name]!r}: not a number") from None
    meeting = _UniqueId()
    _call("railcclGetUniqueIdAt", environment["MASTER_ADDR"].encode(), numbers["MASTER_PORT"], None,
          byref(meeting))
    return init_rank(numbers["WORLD_SIZE"], bytes(meeting), numbers["RANK"])


class Group:
    """`with railccl.Group():` calls inside are carried out together at its end; their buffers are
    held until then. A group inside another ends with the outer one."""

    def __enter__(self):
        _call("ncclGroupStart")
        _group.depth += 1
        return self

    def __exit__(self, kind, *_):
        _group.depth -= 1
        try:
            if kind is None:
                _call("ncclGroupEnd")
            else:  # ends what was recorded as well; the block's own failure is the one to tell
                (_library or load()).ncclGroupEnd()
        finally:
            if not _group.depth:
                held, _group.held = _group.held, []
                for buffer in held:
                    buffer.release()


class Communicator:
    """One rank's end of a communicator: from init(), init_rank(), init_all() or Split()."""

    def __init__(self, handle):
        self._handle = handle
        rank, size = c_int(), c_int()
        _call("ncclCommUserRank", handle, byref(rank))
        _call("ncclCommCount", handle, byref(size))
        self.rank, self.size = rank.value, size.value

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.size

    def free(self):
        """Waits for what is under way, then ends the communicator; it is of no use after."""
        handle, self._handle = self._handle, None
        if handle:
            _call("ncclCommDestroy", handle)

    def abort(self):
        """Ends every call that waits on it, and the communicator."""
        handle, self._handle = self._handle, None
        if handle:
            _call("ncclCommAbort", handle)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.free() if kind is None else self.abort()

    def Split(self, color, key=0):
        """A communicator of the ranks that gave the same color; None for color -1."""
        made = c_void_p()
        self._do("ncclCommSplit", color, key, byref(made), None, first=True)
        return Communicator(made.value) if made.value else None

    def Allreduce(self, sendbuf, recvbuf=None, op=SUM):
        with _Buffer(sendbuf, recvbuf is None) as data, \
                _Buffer(sendbuf if recvbuf is None else recvbuf, True) as out:
            self._fit("Allreduce", data, out, data.count == out.count)
            self._do("ncclAllReduce", data.address, out.address, data.count, data.type, op)

    def Reduce(self, sendbuf, recvbuf=None, op=SUM, root=0):
        """`recvbuf` is looked at on `root` alone."""
        if self.rank == root and recvbuf is None:
            raise ValueError("Reduce: the root needs a recvbuf")
        with _Buffer(sendbuf, False) as data:
            if self.rank != root:
                self._do("ncclReduce", data.address, None, data.count, data.type, op, root)
                return
            with _Buffer(recvbuf, True) as out:
                self._fit("Reduce", data, out, data.count == out.count)
                self._do("ncclReduce", data.address, out.address, data.count, data.type, op, root)

    def Reduce_scatter_block(self, sendbuf, recvbuf, op=SUM):
        with _Buffer(sendbuf, False) as data, _Buffer(recvbuf, True) as out:
            self._fit("Reduce_scatter_block", data, out, data.count == self.size * out.count)
            self._do("ncclReduceScatter", data.address, out.address, out.count, data.type, op)

    def Allgather(self, sendbuf, recvbuf):
        with _Buffer(sendbuf, False) as data, _Buffer(recvbuf, True) as out:
            self._fit("Allgather", data, out, self.size * data.count == out.count)
            self._do("ncclAllGather", data.address, out.address, data.count, data.type)

    def Bcast(self, buf, root=0):
        with _Buffer(buf, True) as data:
            self._do("ncclBroadcast", data.address, data.address, data.count, data.type, root)

    def Alltoall(self, sendbuf, recvbuf):
        with _Buffer(sendbuf, False) as data, _Buffer(recvbuf, True) as out:
            self._fit("Alltoall", data, out,
                      data.count == out.count and data.count % self.size == 0)
            self._do("ncclAlltoAll", data.address, out.address, data.count // self.size, data.type)

    def Gather(self, sendbuf, recvbuf=None, root=0):
        """`recvbuf` is looked at on `root` alone."""
        if self.rank == root and recvbuf is None:
            raise ValueError("Gather: the root needs a recvbuf")
        with _Buffer(sendbuf, False) as data:
            if self.rank != root:
                self._do("ncclGather", data.address, None, data.count, data.type, root)
                return
            with _Buffer(recvbuf, True) as out:
                self._fit("Gather", data, out, self.size * data.count == out.count)
                self._do("ncclGather", data.address, out.address, data.count, data.type, root)

    def Scatter(self, sendbuf, recvbuf, root=0):
        """`sendbuf` is looked at on `root` alone; None elsewhere."""
        with _Buffer(recvbuf, True) as out:
            if self.rank != root:
                self._do("ncclScatter", None, out.address, out.count, out.type, root)
                return
            with _Buffer(sendbuf, False) as data:
                self._fit("Scatter", data, out, data.count == self.size * out.count)
                self._do("ncclScatter", data.address, out.address, out.count, data.type, root)

    def Send(self, buf, dest):
        with _Buffer(buf, False) as data:
            self._do("ncclSend", data.address, data.count, data.type, dest)

    def Recv(self, buf, source):
        with _Buffer(buf, True) as out:
            self._do("ncclRecv", out.address, out.count, out.type, source)

    def Barrier(self):
        """Returns when all ranks have called it."""
        self.Allreduce(bytearray(1))

    def _fit(self, name, data, out, counts_fit):
        if data.type != out.type:
            raise TypeError(f"{name}: sendbuf and recvbuf have different datatypes")
        if not counts_fit:
            raise ValueError(f"{name}: {data.count} elements in sendbuf do not go with {out.count} in "
                             f"recvbuf on {self.size} ranks")

    def _do(self, name, *arguments, first=False):
        if not self._handle:
            raise ValueError("the communicator was freed or aborted")
        handle = self._handle
        where = (handle, *arguments) if first else (*arguments, handle, None)
        _call(name, *where, comm=handle)
