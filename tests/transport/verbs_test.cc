// What verbs decides and says without a device: which ports NCCL_IB_HCA means, which GID is used,
// that cards and addresses read back and broken ones are refused, what a failed completion is
// called, and that a host without RDMA devices is told so. With devices: conformance_test.cc, run
// by tests/rdma.
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <cstring>

#include "transport/harness.h"
#ifdef RAILCCL_VERBS_HEADERS
#include "transport/verbs_burial.h"
#endif
#include "transport/verbs_choice.h"
#include "transport/verbs_wire.h"

namespace railccl::transport {
namespace {

bool allows(const char* setting, const char* device, int port) {
  Result<HcaFilter> filter = HcaFilter::parse(setting);
  EXPECT_TRUE(filter.is_ok()) << setting << ": " << filter.status().text();
  return filter.is_ok() && filter->allows(device, port);
}

TEST(VerbsHca, NamesAreMeantAsNcclMeansThem) {
  EXPECT_TRUE(allows("", "mlx5_0", 1));
  EXPECT_TRUE(allows("mlx5", "mlx5_7", 2));
  EXPECT_FALSE(allows("mlx5", "bnxt_re0", 1));
  EXPECT_TRUE(allows("mlx5_1", "mlx5_10", 1));
  EXPECT_FALSE(allows("=mlx5_1", "mlx5_10", 1));
  EXPECT_TRUE(allows("=mlx5_1:2,mlx5_3", "mlx5_1", 2));
  EXPECT_FALSE(allows("=mlx5_1:2,mlx5_3", "mlx5_1", 1));
  EXPECT_TRUE(allows("=mlx5_1:2,mlx5_3", "mlx5_3", 1));
  EXPECT_FALSE(allows("^mlx5_1", "mlx5_11", 1));
  EXPECT_TRUE(allows("^=mlx5_1", "mlx5_11", 1));
  EXPECT_FALSE(allows("^=mlx5_1,mlx5_2:1", "mlx5_2", 1));
  EXPECT_TRUE(allows("^=mlx5_1,mlx5_2:1", "mlx5_2", 2));
}

TEST(VerbsHca, NonsenseIsRefused) {
  for (const char* text : {"^", "=", "^=", "mlx5_0,,mlx5_1", ",", "mlx5_0:", "mlx5_0:x", "mlx5_0:0",
                           "mlx5_0:1x", "mlx5_0:256", ":1"}) {
    const Result<HcaFilter> filter = HcaFilter::parse(text);
    ASSERT_FALSE(filter.is_ok()) << text;
    EXPECT_EQ(filter.status().code(), Code::invalid_argument);
    EXPECT_NE(filter.status().text().find("NCCL_IB_HCA"), std::string::npos);
  }
}

GidRow row(int index, const char* address, GidRow::Type type) {
  GidRow made{.index = index, .type = type};
  const InterfaceAddress parsed = std::move(parse_address(address)).value();
  if (parsed.address.ss_family == AF_INET) {
    made.gid[10] = made.gid[11] = 0xff;
    std::memcpy(&made.gid[12], &reinterpret_cast<const sockaddr_in&>(parsed.address).sin_addr, 4);
  } else {
    std::memcpy(made.gid.data(), &reinterpret_cast<const sockaddr_in6&>(parsed.address).sin6_addr,
                16);
  }
  return made;
}

TEST(VerbsGid, VersionTwoWithAnIpv4AddressIsPreferred) {
  using Type = GidRow::Type;
  std::vector<GidRow> rows = {row(0, "fe80::1", Type::roce_v1), row(1, "fe80::1", Type::roce_v2),
                              row(2, "10.0.0.1", Type::roce_v1), row(3, "fd00::1", Type::roce_v2),
                              row(4, "10.0.0.1", Type::roce_v2)};
  for (const int expected : {4, 3, 1, 2, 0}) {
    const Result<GidRow> chosen = choose_gid(rows, false, -1);
    ASSERT_TRUE(chosen.is_ok());
    EXPECT_EQ(chosen->index, expected);
    std::erase_if(rows, [&](const GidRow& one) { return one.index == expected; });
  }
  EXPECT_NE(choose_gid(rows, false, -1).status().text().find("no address"), std::string::npos);
  EXPECT_NE(choose_gid(rows, true, -1).status().text().find("subnet manager"), std::string::npos);
}

TEST(VerbsGid, TheUserMayAskForARow) {
  const std::vector<GidRow> rows = {row(0, "fe80::1", GidRow::Type::roce_v1),
                                    row(3, "10.0.0.1", GidRow::Type::roce_v2)};
  EXPECT_EQ(choose_gid(rows, false, 0)->index, 0);
  const Status none = choose_gid(rows, false, 1).status();
  EXPECT_EQ(none.code(), Code::invalid_argument);
  EXPECT_NE(none.text().find("NCCL_IB_GID_INDEX=1"), std::string::npos);
}

TEST(VerbsGid, IsAnAddressWithItsSubnet) {
  EXPECT_EQ(text_of(address_of(row(0, "10.0.0.1", GidRow::Type::roce_v2).gid)), "10.0.0.1/32");
  EXPECT_EQ(text_of(address_of(row(0, "fd00::1", GidRow::Type::infiniband).gid)), "fd00::1/64");
}

TEST(VerbsPairs, ThoseOfOneInfinibandFabricArePairedByName) {
  const auto places = [](const char* first, const char* second) {
    return std::vector<TcpEndpoint>{
        {address_of(row(0, first, GidRow::Type::infiniband).gid), "mlx5_0"},
        {address_of(row(0, second, GidRow::Type::infiniband).gid), "mlx5_1"}};
  };
  // The prefix that every subnet manager gives unless told otherwise.
  const auto pairs =
      verbs_pairs(places("fe80::1", "fe80::2"), places("fe80::11", "fe80::12"), false);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].from.interface, pairs[0].to.interface);
  EXPECT_EQ(pairs[1].from.interface, pairs[1].to.interface);
  EXPECT_EQ(text_of(pairs[1].to.address.address), "fe80::12");
  // Two fabrics: by prefix, whatever the names are.
  const auto across = verbs_pairs(places("fec0:0:0:1::1", "fec0:0:0:2::1"),
                                  places("fec0:0:0:2::2", "fec0:0:0:1::2"), false);
  ASSERT_EQ(across.size(), 2u);
  EXPECT_NE(across[0].from.interface, across[0].to.interface);
  EXPECT_NE(across[1].from.interface, across[1].to.interface);
  // InfiniBand and a RoCE port with an IPv4 address have nothing to say to each other.
  EXPECT_TRUE(
      verbs_pairs(places("fe80::1", "fe80::2"), places("10.0.0.1", "10.0.1.1"), false).empty());
}

VerbsCard card() {
  VerbsCard made;
  made.gid = row(0, "10.0.0.1", GidRow::Type::roce_v2).gid;
  made.far_gid = row(0, "fd00::2", GidRow::Type::roce_v2).gid;
  made.qp = 0xabcdef;
  made.psn = 0x123456;
  made.lid = 0x8001;
  made.mtu = 5;
  made.infiniband = true;
  made.ring_key = 0xdeadbeef;
  made.ring = 0x7fff12345678;
  made.ring_bytes = 1 << 20;
  made.messages = 128;
  return made;
}

TEST(VerbsWire, CardsReadBackAndBrokenOnesAreRefused) {
  const VerbsCardBytes bytes = encode(card());
  EXPECT_EQ(decode_verbs_card(bytes), card());
  for (size_t i = 0; i < bytes.size(); i++) {
    VerbsCardBytes broken = bytes;
    broken[i] ^= std::byte{0x40};
    EXPECT_FALSE(decode_verbs_card(broken)) << "byte " << i;
    EXPECT_FALSE(decode_verbs_card(std::span(bytes).first(i)));
  }
  const auto refused = [](const auto& change) {
    VerbsCard bad = card();
    change(bad);
    return !decode_verbs_card(encode(bad)).has_value();
  };
  EXPECT_TRUE(refused([](VerbsCard& bad) { bad.qp = 1 << 24; }));
  EXPECT_TRUE(refused([](VerbsCard& bad) { bad.psn = 1 << 24; }));
  EXPECT_TRUE(refused([](VerbsCard& bad) { bad.ring_bytes = 3 << 19; }));
  EXPECT_TRUE(refused([](VerbsCard& bad) { bad.ring_bytes = 2 * kVerbsRingMax; }));
  EXPECT_TRUE(refused([](VerbsCard& bad) { bad.ring_bytes = 0; }));
  EXPECT_TRUE(refused([](VerbsCard& bad) { bad.ring = ~uint64_t{0}; }));
  EXPECT_TRUE(refused([](VerbsCard& bad) { bad.mtu = 0; }));
  EXPECT_TRUE(refused([](VerbsCard& bad) { bad.mtu = 6; }));
  EXPECT_TRUE(refused([](VerbsCard& bad) { bad.messages = 1; }));
}

TEST(VerbsWire, ACardWithoutRdmaIsNoOther) {
  const VerbsCardBytes plain = plain_verbs_card();
  EXPECT_TRUE(is_plain_verbs_card(plain));
  EXPECT_FALSE(decode_verbs_card(plain));
  EXPECT_FALSE(is_plain_verbs_card(encode(card())));
  EXPECT_FALSE(is_plain_verbs_card(std::span(plain).first(plain.size() - 1)));
}

TEST(VerbsWire, AddressesReadBackAndBrokenOnesAreRefused) {
  const InterfaceAddress first = std::move(parse_address("10.0.0.1/24")).value();
  const InterfaceAddress second = std::move(parse_address("fd00::1/64")).value();
  const VerbsAddress address{{4711, {{first, "eth0"}}}, {{first, "eth0"}, {second, "mlx5_1"}}};
  const std::string bytes = encode(address);
  const auto read = decode_verbs_address(bytes);
  ASSERT_TRUE(read);
  EXPECT_EQ(encode(*read), bytes);
  EXPECT_EQ(read->ports[1].interface, "mlx5_1");
  for (size_t i = 0; i < bytes.size(); i++)
    EXPECT_FALSE(decode_verbs_address(std::string_view(bytes).substr(0, i))) << i;
  EXPECT_FALSE(decode_verbs_address(encode(address.control))) << "an address of tcp";
}

TEST(VerbsWire, ImmediatesReadBack) {
  for (const uint32_t bytes : {0u, 1u, 65536u, kVerbsRingMax}) {
    const VerbsImmediate data = decode_verbs_immediate(encode(VerbsImmediate{.bytes = bytes}));
    EXPECT_FALSE(data.grant);
    EXPECT_EQ(data.bytes, bytes);
    const VerbsImmediate grant = decode_verbs_immediate(
        encode(VerbsImmediate{.grant = true, .bytes = bytes, .messages = kVerbsGrantMessagesMax}));
    EXPECT_TRUE(grant.grant);
    EXPECT_EQ(grant.bytes, bytes);
    EXPECT_EQ(grant.messages, kVerbsGrantMessagesMax);
  }
}

TEST(VerbsErrors, ACompletionSaysWhatToLookFor) {
  constexpr int kRetriesExceeded = 12;
  const std::string text = completion_text(kRetriesExceeded, "transport retry counter exceeded", 7);
  EXPECT_NE(text.find("transport retry counter exceeded"), std::string::npos);
  EXPECT_NE(text.find("4791"), std::string::npos);
  EXPECT_NE(text.find("0x7"), std::string::npos);
  EXPECT_EQ(completion_text(999, "strange", 0), "strange (vendor code 0x0)");
}

#ifdef RAILCCL_VERBS_HEADERS
TEST(VerbsBurial, GivesEachPlaceBackOnceAndEndsWithWhatIsLeft) {
  const auto bury = [](VerbsBurial* burial, size_t place) {
    VerbsRemains remains;
    remains.ring = std::move(Mirrored::create(64 << 10)).value();
    remains.place = place;
    burial->add(std::move(remains));
  };
  VerbsBurial burial;
  EXPECT_FALSE(burial.take_done());
  for (size_t place = 0; place < 20; place++) bury(&burial, place);
  size_t next = 0;
  const Deadline deadline = Deadline::after_ms(20'000);
  while (next < 20 && !deadline.passed()) {
    const auto done = burial.take_done();
    if (!done) continue;
    EXPECT_EQ(*done, next);
    next++;
  }
  EXPECT_EQ(next, 20u);
  EXPECT_FALSE(burial.take_done());
  bury(&burial, 20);
}

TEST(VerbsWithoutDevices, IsNotUsedAndSaysWhy) {
  Context context = context_of(0, 2, 1, 1, Settings());
  context.settings.ib_hca = "=no_such_device";
  const TransportKind& verbs = kind_of("verbs");
  Status status = verbs.usable(context);
  if (status.is_ok()) status = verbs.create(context).status();
  EXPECT_EQ(status.code(), Code::unsupported) << status.text();
  context.settings.ib_disable = true;
  EXPECT_NE(verbs.usable(context).text().find("NCCL_IB_DISABLE"), std::string::npos);
}
#endif

}  // namespace
}  // namespace railccl::transport
