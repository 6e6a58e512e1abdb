// Network plugins: every version of their interface is laid out as documented and adapted to one
// class; the variables that name plugins mean what they mean to NCCL; links work over each version,
// between processes, over several devices of which one fails; what plugins refuse, claim or garble
// is an error that names the plugin, its function and the result. The plugins are tests/plugins.
#include <gmock/gmock.h>

#include <cstddef>

#include "transport/nccl_net_plugin.h"
#include "transport/net_example.h"
#include "transport/net_path.h"
#include "transport/net_wire.h"
#include "transport/processes.h"

namespace railccl::transport {
namespace {

using testing::HasSubstr;

// Each member at the place of its number, as the documented structs list them.
TEST(NetPluginAbi, FunctionsAreWhereTheDocumentationHasThem) {
  using namespace net_abi;
  const auto expect_row = [](std::initializer_list<size_t> offsets) {
    size_t place = 0;
    for (const size_t offset : offsets) EXPECT_EQ(offset, 8 * place++);
  };
#define RAILCCL_COMMON(T)                                                                      \
  offsetof(T, name), offsetof(T, init), offsetof(T, devices), offsetof(T, get_properties),     \
      offsetof(T, listen), offsetof(T, connect), offsetof(T, accept),                          \
      offsetof(T, register_memory), offsetof(T, register_dma_buffer), offsetof(T, deregister), \
      offsetof(T, send), offsetof(T, receive), offsetof(T, flush), offsetof(T, test),          \
      offsetof(T, close_send), offsetof(T, close_receive), offsetof(T, close_listen)
#define RAILCCL_SINCE_7(T) offsetof(T, memory_on_device), offsetof(T, receive_consumed)
  expect_row({RAILCCL_COMMON(Net6)});
  expect_row({RAILCCL_COMMON(Net7), RAILCCL_SINCE_7(Net7)});
  expect_row({RAILCCL_COMMON(Net8), RAILCCL_SINCE_7(Net8)});
  expect_row({RAILCCL_COMMON(Net9), RAILCCL_SINCE_7(Net9), offsetof(Net9, fuse)});
  expect_row({RAILCCL_COMMON(Net10), RAILCCL_SINCE_7(Net10), offsetof(Net10, fuse)});
  expect_row({RAILCCL_COMMON(Net11), RAILCCL_SINCE_7(Net11), offsetof(Net11, fuse),
              offsetof(Net11, finalize), offsetof(Net11, set_attributes)});
#undef RAILCCL_COMMON
#undef RAILCCL_SINCE_7
}

TEST(NetPluginAbi, PropertiesAreWhereTheDocumentationHasThem) {
  using namespace net_abi;
  const auto expect = [](std::vector<size_t> offsets, std::vector<size_t> documented) {
    EXPECT_EQ(offsets, documented);
  };
#define RAILCCL_ALL(T)                                                                       \
  offsetof(T, name), offsetof(T, pci_path), offsetof(T, guid), offsetof(T, pointers),        \
      offsetof(T, mbps), offsetof(T, port), offsetof(T, latency_us), offsetof(T, comms_max), \
      offsetof(T, receives_max)
  expect({RAILCCL_ALL(Properties6)}, {0, 8, 16, 24, 28, 32, 36, 40, 44});
  expect({RAILCCL_ALL(Properties7), offsetof(Properties7, device_type)},
         {0, 8, 16, 24, 28, 32, 36, 40, 44, 48});
  expect({RAILCCL_ALL(Properties8), offsetof(Properties8, device_type)},
         {0, 8, 16, 24, 32, 36, 40, 44, 48, 52});
  for (const bool newest : {false, true}) {
    const std::vector<size_t> offsets =
        newest
            ? std::vector<size_t>{RAILCCL_ALL(Properties11), offsetof(Properties11, device_type),
                                  offsetof(Properties11, fused), offsetof(Properties11, bytes_max)}
            : std::vector<size_t>{RAILCCL_ALL(Properties9), offsetof(Properties9, device_type),
                                  offsetof(Properties9, fused), offsetof(Properties9, bytes_max)};
    expect(offsets, {0, 8, 16, 24, 36, 40, 44, 48, 52, 56, 64, 88});
  }
#undef RAILCCL_ALL
}

class NetPluginVersion : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(All, NetPluginVersion, testing::Range(6, 12));

// One connection, a group of two receives whose messages come the other way round, and no object
// left behind.
TEST_P(NetPluginVersion, IsAdapted) {
  Example example(GetParam());
  const int alive = example.alive();
  const Settings settings = settings_of(GetParam());
  auto opened = NetPlugin::open(settings, 4711);
  ASSERT_TRUE(opened.is_ok()) << opened.status().text();
  std::shared_ptr<NetPlugin> plugin = *opened;
  EXPECT_EQ(plugin->name(), "Example");
  EXPECT_EQ(plugin->version(), GetParam());
  ASSERT_EQ(plugin->devices().size(), 2u);
  const NetDevice& device = plugin->devices()[1];
  EXPECT_EQ(device.name, "example1");
  EXPECT_EQ(device.nic, "example1");
  EXPECT_EQ(device.guid, 1u);
  EXPECT_EQ(device.mbps, 10001);
  EXPECT_EQ(device.port, 1);
  EXPECT_EQ(device.latency_us, 12.5);
  EXPECT_EQ(device.receives_max, 8);
  EXPECT_EQ(device.bytes_max, size_t{1} << 30);

  NetHandle handle, copy;
  void* const listener = *plugin->listen(1, &handle);
  copy.bytes = handle.bytes;
  void *sender = nullptr, *receiver = nullptr;
  const Deadline deadline = Deadline::after_ms(5000);
  while ((sender == nullptr || receiver == nullptr) && !deadline.passed()) {
    if (sender == nullptr) sender = *plugin->connect(1, &copy);
    if (receiver == nullptr) receiver = *plugin->accept(listener);
  }
  ASSERT_NE(sender, nullptr);
  ASSERT_NE(receiver, nullptr);

  std::string from = "first and second", to(100, '.');
  void* const from_memory = *plugin->enroll(sender, from.data(), from.size());
  void* const to_memory = *plugin->enroll(receiver, to.data(), to.size());
  const NetReceive places[] = {{to.data(), 20, 7, to_memory}, {to.data() + 50, 20, 8, to_memory}};
  void* const wanted = *plugin->receive(receiver, places);
  ASSERT_NE(wanted, nullptr);
  void* const second = *plugin->send(sender, from.data() + 10, 6, 8, from_memory);
  void* const first = *plugin->send(sender, from.data(), 5, 7, from_memory);
  std::array<int, 8> sizes{};
  int done = 0;
  while (done < 2 && !deadline.passed())
    done += *plugin->test(done == 0 ? second : first, sizes) ? 1 : 0;
  sizes = {};
  while (done < 3 && !deadline.passed()) done += *plugin->test(wanted, sizes) ? 1 : 0;
  ASSERT_EQ(done, 3);
  EXPECT_EQ(sizes[0], 5);
  EXPECT_EQ(sizes[1], 6);
  EXPECT_EQ(to.substr(0, 6), "first.");
  EXPECT_EQ(to.substr(50, 7), "second.");

  // The plugin's refusal: memory that was never registered.
  std::byte stray{};
  const Status refused = plugin->send(sender, &stray, 1, 0, from_memory).status();
  EXPECT_EQ(refused.text(),
            fmt::format("network plugin Example (v{}): isend returned 3 (ncclInternalError)",
                        GetParam()));
  EXPECT_TRUE(plugin->dismiss(sender, from_memory).is_ok());
  EXPECT_TRUE(plugin->dismiss(receiver, to_memory).is_ok());
  EXPECT_TRUE(plugin->close_send(sender).is_ok());
  EXPECT_TRUE(plugin->close_receive(receiver).is_ok());
  EXPECT_TRUE(plugin->close_listen(listener).is_ok());
  EXPECT_EQ(example.alive(), alive);
  // Up to version 10 once per process, then once per communicator, to its end.
  EXPECT_EQ(example.inits(), 1);
  opened = Status(Code::aborted, "let go");
  plugin.reset();
  EXPECT_EQ(example.inits(), GetParam() >= 11 ? 0 : 1);
}

// Streams both ways over a link, also through a plugin that has no request to give now and then.
TEST_P(NetPluginVersion, CarriesLinks) {
  Example example(GetParam());
  for (const char* how : {"", "reluctant", "few_bytes"}) {
    example.misbehave(how);
    const int alive = example.alive();
    {
      RealWorld world("nccl_net", 2, settings_of(GetParam()));
      std::vector<Tasks> tasks(2);
      for (int rank = 0; rank < 2; rank++) {
        Link* const link = *world.at(rank).link(1 - rank, 0);
        const auto mine = static_cast<uint64_t>(rank), theirs = static_cast<uint64_t>(1 - rank);
        tasks[mine].push_back(std::make_unique<SendTask>(link, mine, 1 << 20, 300'000));
        tasks[mine].push_back(std::make_unique<ReceiveTask>(link, theirs, 1 << 20, 300'000));
      }
      for (const Status& status : drive_all(world, tasks))
        EXPECT_TRUE(status.is_ok()) << how << ": " << status.text();
    }
    EXPECT_EQ(example.alive(), alive) << how << ": something was not closed";
  }
}

TEST(NetPluginNames, AreSearchedAsNcclDoes) {
  using testing::ElementsAre;
  EXPECT_THAT(plugin_files("", "libnccl-net"), ElementsAre("libnccl-net.so"));
  EXPECT_THAT(plugin_files("ofi", "libnccl-net"), ElementsAre("ofi", "libnccl-net-ofi.so"));
  EXPECT_THAT(plugin_files("./x", "libnccl-net"), ElementsAre("./x"));
  EXPECT_THAT(plugin_files("libx.so", "libnccl-net"), ElementsAre("libx.so"));
  EXPECT_THAT(plugin_names("a,,b"), ElementsAre("a", "b"));
  EXPECT_TRUE(plugin_names("None").empty());
  EXPECT_TRUE(plugin_names("").empty());
}

/// Why no plugin can be used.
Status refusal(const Settings& settings) {
  const Context context = context_of(0, 2, 1, 1, settings);
  Status status = kind_of("nccl_net").usable(context);
  if (status.is_ok()) status = kind_of("nccl_net").create(context).status();
  EXPECT_FALSE(status.is_ok());
  return status;
}

TEST(NetPluginNames, OneThatIsNotThereIsNoNetwork) {
  Settings settings;
  EXPECT_THAT(refusal(settings).text(), HasSubstr("libnccl-net.so"));
  settings.net_plugin = "no_such_thing";
  EXPECT_EQ(refusal(settings).code(), Code::unsupported);
  EXPECT_THAT(refusal(settings).text(), HasSubstr("libnccl-net-no_such_thing.so"));
  settings.net_plugin = "none";
  EXPECT_THAT(refusal(settings).text(), HasSubstr("NCCL_NET_PLUGIN is none"));
  settings.net_plugin = fmt::format("{}/libnccl-net-nothing.so", RAILCCL_PLUGINS);
  EXPECT_THAT(refusal(settings).text(), HasSubstr("has no ncclNetPlugin_v6 to v11"));
}

TEST(NetPluginNames, TheFirstThatWorksIsTaken) {
  Settings settings = settings_of(8);
  settings.net_plugin = "no_such_thing," + file_of(8) + "," + file_of(9);
  const auto plugin = NetPlugin::open(settings, 1);
  ASSERT_TRUE(plugin.is_ok()) << plugin.status().text();
  EXPECT_EQ((*plugin)->version(), 8);
}

TEST(NetPluginNames, NcclNetChoosesByTheNameThatThePluginHasForItself) {
  Settings settings = settings_of(7);
  settings.net = "eXample";
  EXPECT_TRUE(NetPlugin::open(settings, 1).is_ok());
  settings.net = "other";
  const Status status = NetPlugin::open(settings, 1).status();
  EXPECT_EQ(status.code(), Code::invalid_usage);
  EXPECT_THAT(status.text(), HasSubstr("NCCL_NET=other"));
  EXPECT_THAT(status.text(), HasSubstr("called Example"));
}

// What a plugin says of itself that cannot be: in version 11, which is asked anew each time.
TEST(NetPluginMisbehaves, AtTheBeginning) {
  Example example(11);
  const std::pair<const char*, const char*> cases[] = {
      {"init", "(v11): init returned 2 (ncclSystemError)"},
      {"devices", "(v11): devices returned 2 (ncclSystemError)"},
      {"no_devices", "(v11) has no devices"},
      {"many_devices", "claims to have 1073741824 devices"},
      {"properties", "(v11): getProperties returned 3 (ncclInternalError)"},
      {"gpu_only", "device 0 (example0) does not take host memory"},
      {"on_device", "works only with a GPU's help"},
      {"no_bytes", "claims to take messages of up to 0 bytes"},
  };
  for (const auto& [how, what] : cases) {
    example.misbehave(how);
    EXPECT_THAT(refusal(settings_of(11)).text(), HasSubstr(what)) << how;
    EXPECT_EQ(example.inits(), 0) << how;
  }
  example.misbehave("no_name");
  const auto plugin = NetPlugin::open(settings_of(11), 1);
  ASSERT_TRUE(plugin.is_ok());
  EXPECT_EQ((*plugin)->devices()[0].nic, "device0");
}

/// How a transfer between two ranks ends with a plugin that misbehaves. Once one has failed the
/// other is given a moment.
std::vector<Status> transfer(const Settings& settings) {
  RealWorld world("nccl_net", 2, settings);
  std::vector<Tasks> tasks(2);
  tasks[0].push_back(std::make_unique<SendTask>(*world.at(0).link(1, 0), 1, 8 << 20, 300'000));
  tasks[1].push_back(std::make_unique<ReceiveTask>(*world.at(1).link(0, 0), 1, 8 << 20, 300'000));
  std::vector<Status> results(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; rank++) {
    threads.emplace_back([&, rank] {
      const auto self = static_cast<size_t>(rank);
      results[self] = drive(world.at(rank), tasks[self], 20'000);
      if (results[self].is_ok()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      world.at(1 - rank).abort(Status(Code::aborted, "the other rank has failed"));
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

TEST(NetPluginMisbehaves, InATransfer) {
  Example example(9);
  // Both ranks have the plugin in this process, so either may see it first and tell the other.
  const std::pair<const char*, const char*> cases[] = {
      {"listen", "(v9): listen returned 2 (ncclSystemError)"},
      {"connect", "(v9): connect returned 2 (ncclSystemError)"},
      {"regmr", "(v9): regMr returned 3 (ncclInternalError)"},
      {"isend:20", "(v9): isend returned 2 (ncclSystemError)"},
      {"irecv:20", "(v9): irecv returned 2 (ncclSystemError)"},
      {"test:30", "(v9): test returned 2 (ncclSystemError)"},
      {"size:30", "claims that 1073741824 bytes came in a place for 65792"},
      {"garble:30", "what came is not a message of ours"},
  };
  for (const auto& [how, what] : cases) {
    example.misbehave(how);
    const int64_t start = now_ns();
    const std::vector<Status> results = transfer(settings_of(9));
    for (const Status& status : results) EXPECT_FALSE(status.is_ok()) << how;
    const std::string texts = results[0].text() + "; " + results[1].text();
    EXPECT_THAT(texts, HasSubstr(what)) << how;
    EXPECT_THAT(texts, HasSubstr("nccl_net to rank")) << how;
    EXPECT_LT(now_ns() - start, 10'000'000'000) << how;
  }
}

// A device that connects to nobody: the deadline of the meeting, not a hang.
TEST(NetPluginMisbehaves, AConnectionThatNeverComesAboutEndsInTime) {
  Example example(8);
  example.misbehave("connect_never");
  RealWorld world("nccl_net", 2, settings_of(8));
  std::vector<Tasks> tasks(2);
  tasks[0].push_back(std::make_unique<SendTask>(*world.at(0).link(1, 0), 1, 10, 10));
  std::thread abort([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    world.at(0).abort(Status(Code::aborted, "enough"));
  });
  const int64_t start = now_ns();
  const Status status = drive(world.at(0), tasks[0], 5000);
  abort.join();
  EXPECT_EQ(status.code(), Code::aborted) << status.text();
  EXPECT_LT(now_ns() - start, 4'000'000'000);
}

// Requests that are never done are no error. Whoever waits for them can be told to stop.
TEST(NetPluginMisbehaves, WaitingForWhatIsNeverDoneEndsWithTheAbort) {
  Example example(7);
  example.misbehave("never:30");
  RealWorld world("nccl_net", 2, settings_of(7));
  std::vector<Tasks> tasks(2);
  tasks[0].push_back(std::make_unique<SendTask>(*world.at(0).link(1, 0), 1, 8 << 20, 300'000));
  tasks[1].push_back(std::make_unique<ReceiveTask>(*world.at(1).link(0, 0), 1, 8 << 20, 300'000));
  std::thread abort([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    for (int rank = 0; rank < 2; rank++) world.at(rank).abort(Status(Code::aborted, "enough"));
  });
  const int64_t start = now_ns();
  for (const Status& status : drive_all(world, tasks, 5000))
    EXPECT_EQ(status.code(), Code::aborted) << status.text();
  abort.join();
  EXPECT_LT(now_ns() - start, 4'000'000'000);
}

// Of two devices one fails for ever in mid-transfer: the other takes over, and no byte is lost.
TEST(NetPluginSeveralDevices, OneFailsInATransferAndTheOtherGoesOn) {
  if (on_loopback_only()) GTEST_SKIP() << "hosts do not meet on loopback";
  for (const char* how : {"isend1:40", "test0:40", "irecv1:60"}) {
    Example example(10);
    example.misbehave(how);
    RealWorld world = two_hosts(10);
    std::vector<Tasks> tasks(2);
    for (int rank = 0; rank < 2; rank++) {
      Link* const link = *world.at(rank).link(1 - rank, 0);
      const auto mine = static_cast<uint64_t>(rank), theirs = static_cast<uint64_t>(1 - rank);
      tasks[mine].push_back(std::make_unique<SendTask>(link, mine, 16 << 20, 300'000));
      tasks[mine].push_back(std::make_unique<ReceiveTask>(link, theirs, 16 << 20, 300'000));
    }
    // Nobody leaves while the other may need it: what a broken path had is sent again.
    std::atomic<int> done{0};
    std::vector<Status> results(2);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 2; rank++) {
      threads.emplace_back([&, rank] {
        const auto self = static_cast<size_t>(rank);
        results[self] = drive(world.at(rank), tasks[self], 20'000);
        done++;
        while (done < 2 && world.at(rank).progress().is_ok()) world.at(rank).wait(1000);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Status& status : results)
      EXPECT_TRUE(status.is_ok()) << how << ": " << status.text();
  }
}

TEST(NetPluginProcesses, KilledPeerIsNoticedWithinASecond) {
  for (const int version : {6, 11}) {
    const auto results =
        run_processes("nccl_net", 2, settings_of(version), [](Transport& transport, int rank, int) {
          return outlive_killed_peer(transport, rank, "closed by peer");
        });
    EXPECT_EQ(results[0], 0);
    EXPECT_EQ(results[1], 128 + SIGKILL);
  }
}

TEST(NetPluginProcesses, BytesOfAPeerThatLeftAreStillGood) {
  const auto results =
      run_processes("nccl_net", 2, settings_of(6), [](Transport& transport, int rank, int) {
        return read_after_goodbye(transport, rank, "closed by peer");
      });
  for (const int code : results) EXPECT_EQ(code, 0);
}

TEST(NetWire, CardsReadBackAndBrokenOnesAreRefused) {
  NetCard card{3, 0x123456789abcdef0, 65792, "mlx5_0", std::vector<std::byte>(128)};
  for (size_t i = 0; i < card.handle.size(); i++) card.handle[i] = static_cast<std::byte>(i);
  const std::vector<std::byte> bytes = encode(card);
  EXPECT_EQ(decode_net_card(bytes), card);
  for (size_t i = 0; i < bytes.size(); i++) {
    std::vector<std::byte> broken = bytes;
    broken[i] ^= std::byte{0x40};
    EXPECT_FALSE(decode_net_card(broken)) << "byte " << i;
    EXPECT_FALSE(decode_net_card(std::span(bytes).first(i)));
  }
  card.message_bytes = 100;
  EXPECT_FALSE(decode_net_card(encode(card)));
  card.message_bytes = 2 << 20;
  EXPECT_FALSE(decode_net_card(encode(card)));
  card.message_bytes = 65536;
  card.nic = "a b";
  EXPECT_FALSE(decode_net_card(encode(card)));
}

TEST(NetWire, AddressesReadBackAndBrokenOnesAreRefused) {
  const NetAddress address{{4711, {{std::move(parse_address("10.0.0.1/24")).value(), "eth0"}}},
                           "OFI",
                           {place_of(7, 0, "eth0"), place_of(7, 63, "eth1")}};
  const std::string bytes = encode(address);
  const auto read = decode_net_address(bytes);
  ASSERT_TRUE(read);
  EXPECT_EQ(encode(*read), bytes);
  EXPECT_EQ(read->network, "OFI");
  EXPECT_EQ(device_of(read->devices[1]), 63);
  EXPECT_EQ(device_of(address.control.endpoints[0]), -1);
  for (size_t i = 0; i < bytes.size(); i++)
    EXPECT_FALSE(decode_net_address(std::string_view(bytes).substr(0, i))) << i;
  EXPECT_FALSE(
      decode_net_address(encode(NetAddress{address.control, "OFI", address.control.endpoints})))
      << "a device with an address of its own";
}

TEST(NetWire, HeadersReadBackAndBrokenOnesAreRefused) {
  using Kind = NetHeader::Kind;
  std::array<std::byte, kNetHeaderBytes + 10> message{};
  const auto read = [&](const NetHeader& header, size_t bytes) {
    const NetHeaderBytes written = encode(header);
    std::copy(written.begin(), written.end(), message.begin());
    return decode_net_header(std::span(message).first(bytes));
  };
  const NetHeader data{Kind::data, true, 10, uint64_t{1} << 60, 77};
  EXPECT_EQ(read(data, kNetHeaderBytes + 10), data);
  EXPECT_FALSE(read(data, kNetHeaderBytes + 9));
  EXPECT_FALSE(read({.kind = Kind::data}, kNetHeaderBytes)) << "data of no bytes";
  EXPECT_FALSE(read({.kind = Kind::control, .bytes = 10}, kNetHeaderBytes + 10));
  EXPECT_FALSE(read(data, 10));
}

}  // namespace
}  // namespace railccl::transport
