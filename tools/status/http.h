// Http: serves one page, "/metrics", to whoever may connect, and survives all others: connections
// that say nothing, too much, nonsense, or do not read are closed after a while; more than a few at
// a time are closed at once, the oldest first to go. One thread; blocks.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/owners.h"
#include "base/status.h"

namespace railccl::status {

/// What a client wants, by the bytes that have come.
enum class Wanted : uint8_t { more, metrics, nothing_here, another_method, nonsense };
inline constexpr size_t kRequestBytesMax = 8 << 10;
Wanted parse_request(std::string_view bytes);

/// "9464" means 127.0.0.1; "[::]:9464" and "0.0.0.0:9464" are for all.
Result<UniqueFd> listen_at(const std::string& address);
/// "127.0.0.1:9464".
Result<std::string> address_of(const UniqueFd& listener);

/// Until `stop` is readable. `page` makes the page anew, at most once per second.
Status serve(const UniqueFd& listener, int stop, const std::function<std::string()>& page);

}  // namespace railccl::status
