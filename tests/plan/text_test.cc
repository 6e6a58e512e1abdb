// Shows that the text form reads back exactly, for plans by hand and for random programs; that
// docs/plan.md's example is the real thing; and that malformed text is refused with its line.
#include <gmock/gmock.h>

#include <fstream>
#include <sstream>

#include "base/random.h"
#include "plan/sample_plans.h"

namespace railccl::plan {
namespace {

using ::testing::HasSubstr;

void expect_round_trip(const Program& program) {
  const std::string text = print(program);
  const Result<Program> back = parse(text);
  ASSERT_TRUE(back) << back.status().text() << "\n" << text;
  EXPECT_EQ(*back, program) << text;
  EXPECT_EQ(print(*back), text);
}

TEST(PlanText, ReadsBackSamples) {
  for (int p = 1; p <= 5; p++)
    for (const uint64_t count : {0, 9})
      for (const Sample& sample : all_samples(p, count))
        for (const Program& program : sample.programs) expect_round_trip(program);
}

/// Any slice, extreme numbers included.
Slice random_slice(Random& random, int ranks) {
  const auto number = [&]() -> uint64_t {
    switch (random.below(4)) {
      case 0:
        return 0;
      case 1:
        return ~uint64_t{0};
      case 2:
        return random.next();
      default:
        return random.below(100);
    }
  };
  Slice slice;
  slice.buffer = static_cast<Buffer>(random.below(3));
  slice.owner = random.chance(0.5) ? kHere : static_cast<int>(random.below(ranks));
  slice.offset = number();
  slice.count = number();
  slice.stride = number();
  slice.modulo = static_cast<uint32_t>(number());
  slice.clamp_stride = number();
  slice.limit = number();
  return slice;
}

TEST(PlanText, ReadsBackRandomPrograms) {
  for (uint64_t seed = 1; seed <= 300; seed++) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const int ranks = 1 + static_cast<int>(random.below(9));
    Request request =
        request_of(random.chance(0.5) ? Collective::all_reduce : Collective::reduce, random.next(),
                   random.chance(0.5), static_cast<int>(random.below(ranks)));
    request.datatype = static_cast<Datatype>(random.below(kDatatypeCount));
    request.op = static_cast<Reduction>(random.below(kReductionCount));
    std::string name;
    for (uint64_t i = random.below(20); i > 0; i--) name += static_cast<char>(random.below(256));
    Builder b(request, ranks, static_cast<int>(random.below(ranks)), name);
    b.scratch(random.next());
    b.channel(static_cast<int>(random.below(3)));
    const auto step = [&] {
      const int peer = static_cast<int>(random.below(ranks));
      const Slice src = random_slice(random, ranks), dst = random_slice(random, ranks);
      const Pre pre = random.chance(0.5) ? Pre::yes : Pre::no;
      const Post post = random.chance(0.5) ? Post::yes : Post::no;
      b.channel(static_cast<int>(random.below(static_cast<uint64_t>(b.channels()))));
      switch (random.below(9)) {
        case 0:
          return b.copy(src, dst, pre, post);
        case 1: {
          std::vector<Slice> sources;
          for (uint64_t i = random.below(4); i > 0; i--)
            sources.push_back(random_slice(random, ranks));
          return b.reduce(src, sources, dst, pre, post);
        }
        case 2:
          return b.send(peer, src, pre);
        case 3:
          return b.recv(peer, dst, post);
        case 4:
          return b.recv_reduce(peer, src, dst, pre, post);
        case 5:
          return b.signal(peer);
        case 6:
          return b.wait(peer);
        case 7:
          return b.signal_channel(
              static_cast<int>(random.below(static_cast<uint64_t>(b.channels()))));
        default:
          return b.wait_channel(
              static_cast<int>(random.below(static_cast<uint64_t>(b.channels()))));
      }
    };
    for (uint64_t i = random.below(6); i > 0; i--) {
      if (random.chance(0.3)) step();
      b.loop(random.below(5), [&] {
        for (uint64_t k = random.below(5); k > 0; k--) step();
      });
    }
    expect_round_trip(std::move(b).take());
  }
}

std::string text_with(const std::string& steps) {
  return "railccl-plan 1\nprogram \"x\" rank 0 of 2\nrequest all_reduce count 8 float sum root 0\n"
         "scratch 4\nchannel 0\n  loop 1\n" +
         steps;
}

TEST(PlanText, TakesCommentsAndBlanks) {
  const Result<Program> program = parse(
      "# a plan\n\n" + text_with("\t copy input [ 0 + 8 ] ->output[0+8]  pre post \r\n# end"));
  ASSERT_TRUE(program) << program.status().text();
  EXPECT_EQ(program->channels[0].steps.size(), 1u);
}

TEST(PlanText, RefusesWithTheLine) {
  const std::pair<std::string, const char*> table[] = {
      {"", "line 1: the text ends where \"railccl-plan 1\" is expected"},
      {"railccl-plan 2\n", "line 1: \"railccl-plan 2\" is not of the form"},
      {"railccl-plan 1\nprogram x rank 0 of 1", "line 2: "},
      {"railccl-plan 1\nprogram \"x", "line 2: "},
      {"railccl-plan 1\nprogram \"\\x4\" rank 0 of 1", "line 2: "},
      {"railccl-plan 1\nprogram \"x\" rank 0 of 1\nrequest all_reduce count -1 float sum root 0",
       "line 3: "},
      {"railccl-plan 1\nprogram \"x\" rank 0 of 1\nrequest every_reduce count 1 float sum root 0",
       "line 3: "},
      {text_with("    jump\n"), "line 7: \"    jump\" starts with no verb"},
      {text_with("    copy input[0+8]\n"), "line 7: \"    copy input[0+8]\" is no right copy step"},
      {text_with("    copy input[0+8] -> output[0+8] pre pre\n"), "goes on after the end"},
      {text_with("    copy input[0+99999999999999999999] -> output[0+8]\n"), "line 7: "},
      {text_with("    send input[0+8] to -1\n"), "line 7: "},
      {text_with("    send input[0+8] to 4294967296\n"), "line 7: "},
      {text_with("    wait channel 65536\n"), "line 7: "},
      {text_with("    copy scratch@[0+8] -> output[0+8]\n"), "line 7: "},
      {text_with("  loop x\n"), "line 7: "},
      {text_with("channel 2\n"), "is not \"channel 1\", the next one"},
      {text_with("channel 1\n    wait from 0\n"),
       "line 8: \"    wait from 0\" comes before any loop"},
      {text_with("    wait from 2\n"), "step 0 (wait): there is no rank 2"},
      {text_with("    wait channel 1\n"), "there is no channel 1"},
      {text_with("    wait from 1 pre\n"), "it reads no input, so it cannot have pre"},
      {"railccl-plan 1\nprogram \"x\" rank 0 of 0\nrequest all_reduce count 1 float sum root 0\n"
       "scratch 0\nchannel 0\n",
       "made for 0 ranks"},
      {std::string(17 << 20, '#'), "at most"},
  };
  for (const auto& [text, expected] : table) {
    const Result<Program> program = parse(text);
    ASSERT_FALSE(program) << text;
    EXPECT_EQ(program.status().code(), Code::invalid_argument);
    EXPECT_THAT(program.status().text(), HasSubstr(expected));
  }
}

TEST(PlanText, DocumentShowsTheRealText) {
  std::ifstream file(std::string(RAILCCL_TEST_DATA) + "/../../docs/plan.md");
  ASSERT_TRUE(file) << "docs/plan.md is missing";
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_THAT(text.str(), HasSubstr(print(ring_all_reduce(4, 8).programs[1])));
}

}  // namespace
}  // namespace railccl::plan
