// Status socket: where this process is asked what its communicators do (status_wire.h). The control
// thread (reactor.h) serves it, so it also answers while all calls hang. Private to this room.
//
// Bounds: a few conversations at a time, each with a question of some bytes and some seconds;
// others than this user and root are hung up on.
#pragma once

namespace railccl::runtime {

/// Listens from now on, once per process; a forked child listens anew with its first call. That it
/// cannot is told to the log, and harms nothing else. Any thread.
void open_status_socket();

}  // namespace railccl::runtime
