// Shows that the page of metrics is what scrapers expect, and that it is served while strangers do
// their worst.
#include "status/metrics.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <regex>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "status/http.h"

namespace railccl::test {
namespace {

using status::parse_request;
using status::Wanted;
using ::testing::HasSubstr;
using ::testing::StartsWith;

status::Gathered some() {
  status::Gathered gathered;
  gathered.host = "h";
  status::Process process;
  process.process = 12;
  status::Communicator one;
  one.id = "12345678";
  one.name = "odd \"name\"\\\n";
  one.ranks = 2;
  one.recorded = 7;
  one.bytes = 56;
  status::Operation operation;
  operation.for_ms = 1500;
  one.in_flight.push_back(operation);
  one.rails.push_back({0, "eth0", 1.25e9, true});
  one.rails.push_back({1, "eth1", 1e300, true});  // not known
  one.paths.resize(3);
  for (status::Path& path : one.paths) path.nic = "eth0", path.state = "works";
  process.communicators.push_back(one);
  gathered.processes.push_back(process);
  gathered.unread.push_back({13, "its process does not answer (stopped)"});
  return gathered;
}

TEST(Metrics, ThePageIsOpenMetrics) {
  const std::string page = status::metrics_of(some());
  std::istringstream lines(page);
  const std::regex comment("# (TYPE|HELP) [a-z_]+ .+");
  const std::regex sample(R"([a-z_]+\{([a-z]+="([^"\\]|\\["\\n])*",?)+\} [0-9.e+-]+)");
  std::string line, last;
  while (std::getline(lines, line)) {
    EXPECT_TRUE(line == "# EOF" || std::regex_match(line, comment) ||
                std::regex_match(line, sample))
        << line;
    last = line;
  }
  EXPECT_EQ(last, "# EOF");
  const std::string who = R"(communicator="12345678",name="odd \"name\"\\\n",rank="0",pid="12")";
  for (const std::string& row :
       {std::string("railccl_processes{state=\"unread\"} 1"),
        "railccl_operations_total{" + who + "} 7", "railccl_bytes_total{" + who + "} 56",
        "railccl_in_flight_seconds{" + who + "} 1.5", "railccl_failed{" + who + "} 0",
        "railccl_rail_bytes_per_second{" + who + ",rail=\"0\",nic=\"eth0\"} 1250000000",
        "railccl_paths{" + who + ",nic=\"eth0\",state=\"works\"} 3"})
    EXPECT_THAT(page, HasSubstr(row + "\n"));
  EXPECT_EQ(page.find("eth1"), std::string::npos);
}

TEST(Metrics, RequestsAreReadStrictly) {
  const std::string end = "\r\nHost: x\r\n\r\n";
  EXPECT_EQ(parse_request("GET /metrics HTTP/1.1" + end), Wanted::metrics);
  EXPECT_EQ(parse_request("GET /metrics?x=1 HTTP/1.0" + end), Wanted::metrics);
  EXPECT_EQ(parse_request("GET /metrics HTTP/1.1\r\n"), Wanted::more);
  EXPECT_EQ(parse_request("GET /"), Wanted::more);
  EXPECT_EQ(parse_request("GET / HTTP/1.1" + end), Wanted::nothing_here);
  EXPECT_EQ(parse_request("POST /metrics HTTP/1.1" + end), Wanted::another_method);
  EXPECT_EQ(parse_request("GET /metrics" + end), Wanted::nonsense);
  EXPECT_EQ(parse_request("GET /metrics HTTP/2" + end), Wanted::nonsense);
  EXPECT_EQ(parse_request(std::string(10'000, 'a')), Wanted::nonsense);
}

/// The server on a thread, for as long as this lives.
class Server {
 public:
  Server() {
    auto listener = status::listen_at("0");
    EXPECT_TRUE(listener.is_ok()) << listener.status().text();
    const auto address = status::address_of(*listener);
    EXPECT_THAT(*address, StartsWith("127.0.0.1:"));
    port_ = static_cast<uint16_t>(std::stoi(address->substr(10)));
    EXPECT_EQ(::pipe(stop_), 0);
    thread_ = std::thread([this, listener = std::move(listener).value()] {
      EXPECT_TRUE(status::serve(listener, stop_[0], [this] {
                    pages_++;
                    return status::metrics_of(some());
                  }).is_ok());
    });
  }
  ~Server() {
    EXPECT_EQ(::write(stop_[1], "x", 1), 1);
    thread_.join();
    ::close(stop_[0]);
    ::close(stop_[1]);
  }
  int connect() const {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval limit{10, 0};
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    EXPECT_EQ(::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return socket;
  }
  std::string get(const std::string& request) const {
    const int socket = connect();
    EXPECT_EQ(::send(socket, request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
    std::string text;
    char bytes[4096];
    for (ssize_t got = 1; got > 0;) {
      got = ::recv(socket, bytes, sizeof bytes, 0);
      if (got > 0) text.append(bytes, static_cast<size_t>(got));
    }
    ::close(socket);
    return text;
  }
  int pages() const { return pages_; }

 private:
  uint16_t port_ = 0;
  int stop_[2] = {-1, -1};
  std::atomic<int> pages_{0};
  std::thread thread_;
};

TEST(Metrics, AreServedWhileStrangersDoTheirWorst) {
  Server server;
  const std::string good = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
  EXPECT_THAT(server.get(good), testing::AllOf(StartsWith("HTTP/1.1 200 OK\r\n"),
                                               HasSubstr("railccl_processes"), HasSubstr("# EOF")));
  EXPECT_THAT(server.get("GET / HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(server.get("PUT /metrics HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405"));
  std::vector<int> open;
  Random random(7);
  for (int i = 0; i < 500; i++) {
    const int socket = server.connect();
    open.push_back(socket);
    std::string bytes;
    if (i % 4 == 1) bytes = "GET /met";  // and never the rest
    for (int b = 0; i % 4 == 2 && b < 200; b++) bytes += static_cast<char>(random.next());
    if (i % 4 == 3) bytes = std::string(20'000, 'x');
    (void)::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (i % 50 != 0) continue;
    EXPECT_THAT(server.get(good), StartsWith("HTTP/1.1 200 OK"));
  }
  // Of those that are left none stays for long.
  const Deadline deadline = Deadline::after_ms(9000);
  for (const int socket : open) {
    char byte[256];
    ssize_t got = 1;
    while (got > 0) got = ::recv(socket, byte, sizeof byte, 0);
    EXPECT_TRUE(got == 0 || errno == ECONNRESET);
    ::close(socket);
  }
  EXPECT_FALSE(deadline.passed());
  EXPECT_THAT(server.get(good), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_LE(server.pages(), 12);  // not one for each who asked
}

TEST(Metrics, AddressesAreReadStrictly) {
  for (const char* bad : {"", ":", "x", "1.2.3.4:", "host.example:80", "70000000", ":80"})
    EXPECT_EQ(status::listen_at(bad).status().code(), Code::invalid_argument) << bad;
  EXPECT_THAT(status::listen_at("203.0.113.1:9464").status().text(),
              HasSubstr("cannot listen at 203.0.113.1:9464"));
}

}  // namespace
}  // namespace railccl::test
