// Rails file: what a probe found out about a fabric, as text, and kept in the cache folder.
//
//     $XDG_CACHE_HOME/railccl/rails-<key>.json
//
// The key is a hash of all that the hosts say of themselves and their NICs in the network: host
// ids (which change with every start of a host), names, addresses, speeds, up or not. So another
// set of hosts, a NIC that was exchanged or a cable that was pulled means another file, or a new
// probe. Cables that were put back in another order while all hosts ran show in none of that:
// RAILCCL_PROBE=force. Any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/settings.h"
#include "base/status.h"
#include "topology/discover.h"

namespace railccl::runtime {

/// The key, 32 hexadecimal digits. `hosts` and `network` as in topology/discover.h.
std::string fabric_key(const std::vector<topology::Host>& hosts,
                       const topology::FlatNetwork& network);

std::string rails_text(const topology::Discovery& found, const std::string& key);
/// Hostile-safe: each NIC of the network is on one rail, each rail has one NIC of a host at most,
/// figures are such as can be measured. Code::invalid_argument says what is wrong.
Result<topology::Discovery> parse_rails(const std::string& text, const std::string& key,
                                        const topology::FlatNetwork& network);

/// What this user's file, or this process, remembers of the fabric, as text that parse_rails()
/// takes; empty when nothing. A file that does not parse is told to the log and passed over.
std::string remembered_rails(const Settings& settings, const std::string& key,
                             const topology::FlatNetwork& network);
/// Remembers it in both; that it cannot be written is told to the log. `*where` names the file.
void remember_rails(const Settings& settings, const std::string& key, const std::string& text,
                    std::string* where);

/// For tools: what is remembered about these hosts, when they are on a flat network.
std::optional<topology::Discovery> remembered_rails(const Settings& settings,
                                                    const std::vector<topology::Host>& hosts);

}  // namespace railccl::runtime
