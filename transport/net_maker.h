// Paths over a network of messages (message_net.h), as path_maker.h wants them made.
//
// The links and how they are connected are tcp's: each rank listens, the lower one of two connects
// once for each pair of devices, and greets; the cards behind the greetings carry the network's
// handles. A path is the link's when a message has come by the network (net_path.h).
//
// Where the network has descriptors, a rank that waits sleeps on them. Where it has none, a rank
// looks often at first, between looks lets others have the processor, and sleeps longer the longer
// nothing has come, never over a millisecond. For a rank that does not wait its keeper looks
// (net_keeper.h).
#pragma once

#include <memory>

#include "transport/message_net.h"
#include "transport/path_maker.h"

namespace railccl::transport {

/// `medium`: the transport's name; `variable`: which names the network that ranks must agree on.
Result<std::unique_ptr<PathMaker>> make_net_maker(const char* medium, const char* variable,
                                                  int rank, std::shared_ptr<MessageNet> net);

}  // namespace railccl::transport
