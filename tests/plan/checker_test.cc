// Shows that the checker accepts right plans of every kind and counts them right, that it refuses
// each kind of wrong one naming the place, and that its verdict does not depend on the order in
// which it runs the ranks. Wrong plans by the thousand are in mutation_test.cc.
#include "plan/checker.h"

#include <gmock/gmock.h>

#include "base/random.h"
#include "plan/sample_plans.h"

namespace railccl::plan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string verdict(const Sample& sample) { return sample.check().status().text(); }

Sample all_reduce_of(int p, uint64_t count, const std::function<void(Builder&)>& write) {
  return make_sample("test", request_of(Collective::all_reduce, count), p, write);
}

TEST(Checker, AcceptsRightPlans) {
  for (int p = 1; p <= 9; p++)
    for (const uint64_t count : {0, 1, 2, 7, 8, 9, 33})
      for (const Sample& sample : all_samples(p, count))
        EXPECT_EQ(verdict(sample), "ok")
            << sample.name << " " << text_of(sample.request) << " p=" << p;
}

TEST(Checker, AcceptsRightPlansOfManyRanks) {
  for (const int p : {31, 64, 65, 130}) {
    EXPECT_EQ(verdict(ring_all_reduce(p, 259)), "ok");
    EXPECT_EQ(verdict(shared_all_reduce(p, 5)), "ok");
    EXPECT_EQ(verdict(direct_all_to_all(p, 3)), "ok");
  }
}

// The same plans and broken ones, each run in many orders.
TEST(Checker, VerdictDoesNotDependOnTheOrderOfRunning) {
  Random random(7);
  for (int p = 2; p <= 5; p++)
    for (Sample& sample : all_samples(p, 9))
      for (int mutant = 0; mutant < 20; mutant++) {
        Sample broken = sample;
        if (mutant > 0) {
          Program& program = broken.programs[random.below(broken.programs.size())];
          Channel& channel = program.channels[random.below(program.channels.size())];
          if (channel.steps.empty()) continue;
          Step& step = channel.steps[random.below(channel.steps.size())];
          switch (random.below(4)) {
            case 0:
              std::swap(step, channel.steps[random.below(channel.steps.size())]);
              break;
            case 1:
              if (step.peer != kHere) step.peer = (step.peer + 1) % p;
              break;
            case 2:
              step.src.offset += 1;
              break;
            default:
              step.dst.offset -= 1;
          }
        }
        const bool right = static_cast<bool>(broken.check());
        for (uint64_t seed = 1; seed <= 6; seed++) {
          broken.options.order_seed = seed;
          EXPECT_EQ(static_cast<bool>(broken.check()), right)
              << sample.name << " mutant " << mutant << " order seed " << seed << "\n"
              << verdict(broken);
        }
      }
}

TEST(Checker, CountsBytesMessagesAndRounds) {
  const Sample ring = ring_all_reduce(4, 8);
  const Result<CheckReport> report = ring.check();
  ASSERT_TRUE(report) << report.status().text();
  for (int rank = 0; rank < 4; rank++) {
    EXPECT_EQ(report->sent_by(rank), 6u * 2 * sizeof(float));
    EXPECT_EQ(report->received_by(rank), 6u * 2 * sizeof(float));
    EXPECT_EQ((report->bytes.at({rank, (rank + 1) % 4})), 6u * 2 * sizeof(float));
    EXPECT_EQ((report->messages.at({rank, (rank + 1) % 4})), 6u);
    EXPECT_EQ(report->local_bytes[static_cast<size_t>(rank)], 3u * 2 * sizeof(float));
  }
  EXPECT_EQ(report->bytes.size(), 4u);
  EXPECT_EQ(report->rounds, 6u);

  const Result<CheckReport> shared = shared_all_reduce(3, 10).check();
  ASSERT_TRUE(shared);
  EXPECT_TRUE(shared->bytes.empty());
  EXPECT_EQ((shared->messages.at({0, 2})), 2u);
  EXPECT_EQ(shared->rounds, 2u);
  EXPECT_EQ(shared->local_bytes[1], (1u + 3u) * 10 * sizeof(float));
}

TEST(Checker, CountsWhatLeavesHostsAndRails) {
  Sample ring = ring_all_reduce(4, 8);
  ring.options.host_of = {0, 0, 1, 1};
  ring.options.rail_of = {0, 1, 0, 1};
  const Result<CheckReport> report = ring.check();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->inter_host_bytes, 2u * 6 * 2 * sizeof(float));  // 1 -> 2 and 3 -> 0
  EXPECT_EQ(report->cross_rail_bytes, 2u * 6 * 2 * sizeof(float));
  ring.options.rail_of = {0, 0, 0, 1};
  EXPECT_EQ(ring.check()->cross_rail_bytes, 6u * 2 * sizeof(float));
  ring.options.host_of = {0, 1};
  EXPECT_THAT(verdict(ring), HasSubstr("a placement of 2 ranks for a plan of 4"));
}

TEST(Checker, NamesAnUnwrittenRead) {
  const Sample sample = all_reduce_of(1, 4, [](Builder& b) {
    const Region scratch = b.scratch(8);
    b.copy(b.input().slice(), scratch.part(0, 4).slice(), Pre::yes);
    b.copy(scratch.part(2, 4).slice(), b.output().slice(), Pre::no, Post::yes);
  });
  EXPECT_EQ(verdict(sample),
            "rank 0 channel 0 step 1 (copy): element 4 of scratch is read but was never written");
}

TEST(Checker, NamesAMissingElement) {
  EXPECT_EQ(verdict(all_reduce_of(1, 4,
                                  [](Builder& b) {
                                    b.copy(b.input().part(0, 3).slice(),
                                           b.output().part(0, 3).slice(), Pre::yes, Post::yes);
                                  })),
            "rank 0: element 3 of output was never written");
}

TEST(Checker, NamesAContributionCountedTwice) {
  const Sample sample = all_reduce_of(2, 4, [](Builder& b) {
    const Slice in = b.input().slice(), out = b.output().slice();
    const int peer = 1 - b.rank();
    b.send(peer, in, Pre::yes);
    b.send(peer, in, Pre::yes);
    b.recv_reduce(peer, in, out, Pre::yes);
    b.recv_reduce(peer, out, out, Pre::no, Post::yes);
  });
  EXPECT_THAT(verdict(sample),
              HasSubstr("rank 1 channel 0 step 3 (recv_reduce from 0): rank 0's contribution would "
                        "be counted twice in element 0 of output"));
}

TEST(Checker, WantsPreAndPostExactlyOnceEvenForOneRank) {
  const auto one = [](Pre pre, Post post, bool in_place) {
    return verdict(
        make_sample("one", request_of(Collective::all_reduce, 4, in_place), 1,
                    [&](Builder& b) { b.copy(b.input().slice(), b.output().slice(), pre, post); }));
  };
  for (const bool in_place : {false, true}) {
    EXPECT_EQ(one(Pre::yes, Post::yes, in_place), "ok");
    EXPECT_THAT(one(Pre::yes, Post::no, in_place), HasSubstr("with pre instead of"));
    EXPECT_THAT(one(Pre::no, Post::no, in_place), HasSubstr("without pre instead of"));
    EXPECT_THAT(one(Pre::no, Post::yes, in_place), HasSubstr("post is for a finished result"));
  }
  EXPECT_THAT(verdict(make_sample("nothing", request_of(Collective::all_reduce, 4, true), 1,
                                  [](Builder&) {})),
              HasSubstr("element 0 of output is input element 0 of rank 0 without pre"));
}

TEST(Checker, WantsPreOnTheContributorsRank) {
  const Sample sample = all_reduce_of(2, 4, [](Builder& b) {
    const Slice in = b.input().slice(), out = b.output().slice();
    const Slice theirs = b.scratch(4).slice();
    b.send(1 - b.rank(), in);
    b.recv(1 - b.rank(), theirs);
    b.copy(theirs, theirs, Pre::yes);
    b.reduce(in, {&theirs, 1}, out, Pre::yes, Post::yes);
  });
  EXPECT_THAT(verdict(sample), HasSubstr("pre is for a raw contribution"));
}

TEST(Checker, SeveralDestinationsMustBeApartAndOfOneSize) {
  const auto with = [](const std::vector<Slice>& dsts) {
    return verdict(make_sample("copies", request_of(Collective::broadcast, 4), 1, [&](Builder& b) {
      b.scratch(8);
      b.copy(b.input().slice(), dsts);
    }));
  };
  const Slice out = Region{Buffer::output, kHere, 0, 4}.slice();
  const auto in_scratch = [](uint64_t from, uint64_t n) {
    return Region{Buffer::scratch, kHere, from, n}.slice();
  };
  EXPECT_EQ(with({out, in_scratch(0, 4), in_scratch(4, 4)}), "ok");
  EXPECT_THAT(with({out, in_scratch(0, 4), in_scratch(3, 4)}),
              HasSubstr("two destinations overlap, from element 3 of scratch on"));
  EXPECT_THAT(with({out, out}), HasSubstr("two destinations overlap"));
  EXPECT_THAT(with({out, in_scratch(0, 3)}), HasSubstr("4 elements are written, but 3 elsewhere"));
}

TEST(Checker, PeersBuffersNeedThatAllHaveEntered) {
  Sample sample = open_all_reduce(2, 4);
  EXPECT_EQ(verdict(sample), "ok");
  sample.options.all_entered = false;
  EXPECT_THAT(verdict(sample), HasSubstr("before rank 1 is known to have entered the call"));
}

TEST(Checker, RefusesMisalignedSums) {
  const Sample sample = all_reduce_of(2, 4, [](Builder& b) {
    const int peer = 1 - b.rank();
    b.send(peer, b.input().part(0, 2).slice(), Pre::yes);
    b.recv_reduce(peer, b.input().part(2, 2).slice(), b.output().part(2, 2).slice(), Pre::yes);
  });
  EXPECT_THAT(verdict(sample),
              AllOf(HasSubstr("input element 2 of rank 1"), HasSubstr("input element 0 of rank 0"),
                    HasSubstr("would be combined for element 2 of output")));
}

TEST(Checker, RefusesWritingTheInput) {
  EXPECT_THAT(verdict(all_reduce_of(
                  1, 4, [](Builder& b) { b.copy(b.input().slice(), b.input().slice()); })),
              HasSubstr("the input is written"));
}

TEST(Checker, RefusesReadingInputThatWasOverwrittenInPlace) {
  const Sample sample =
      make_sample("stale", request_of(Collective::reduce_scatter, 2, true), 2, [](Builder& b) {
        const Region own = b.input().block(static_cast<uint64_t>(b.rank()), 2);
        const Region other = b.input().block(static_cast<uint64_t>(1 - b.rank()), 2);
        b.send(1 - b.rank(), other.slice(), Pre::yes);
        b.recv_reduce(1 - b.rank(), own.slice(), b.output().slice(), Pre::yes, Post::yes);
        b.copy(own.slice(), b.scratch(2).slice());
      });
  EXPECT_THAT(verdict(sample), HasSubstr("is read as input, but was overwritten in place"));
}

TEST(Checker, RefusesSlicesOutOfBounds) {
  EXPECT_THAT(
      verdict(all_reduce_of(
          1, 4,
          [](Builder& b) { b.copy(b.input().part(2, 3).slice(), b.output().part(0, 3).slice()); })),
      HasSubstr("elements [2, 2 + 3) are outside of input, which has 4"));
  EXPECT_THAT(verdict(all_reduce_of(1, 4,
                                    [](Builder& b) {
                                      Slice far = b.input().slice();
                                      far.stride = ~uint64_t{0};
                                      b.loop(3, [&] { b.copy(far, b.output().slice()); });
                                    })),
              HasSubstr("iteration 1 (copy): "));
}

TEST(Checker, RefusesHugeBuffersAndEndlessPlans) {
  Sample sample = all_reduce_of(1, 1, [](Builder& b) {
    b.loop(~uint64_t{0}, [&] { b.copy(b.input().slice(), b.output().slice(), Pre::yes); });
  });
  sample.options.steps_max = 1000;
  EXPECT_THAT(verdict(sample), HasSubstr("gave up after 1000 steps"));
  EXPECT_THAT(verdict(all_reduce_of(2, ~uint64_t{0} / 2, [](Builder&) {})),
              HasSubstr("more than 2^48 elements"));
}

TEST(Checker, RefusesPartialOverlap) {
  EXPECT_THAT(verdict(all_reduce_of(1, 4,
                                    [](Builder& b) {
                                      const Region s = b.scratch(8);
                                      b.copy(b.input().slice(), s.part(0, 4).slice());
                                      b.copy(s.part(0, 4).slice(), s.part(3, 4).slice());
                                    })),
              HasSubstr("overlap without being the same, from element 3 of scratch on"));
}

TEST(Checker, RefusesMessagesOfOtherSizeOrKind) {
  const auto pair = [](const std::function<void(Builder&)>& sender,
                       const std::function<void(Builder&)>& receiver) {
    return verdict(all_reduce_of(2, 4, [&](Builder& b) {
      if (b.rank() == 0) sender(b);
      if (b.rank() == 1) receiver(b);
    }));
  };
  const auto send3 = [](Builder& b) { b.send(1, b.input().part(0, 3).slice()); };
  const auto recv4 = [](Builder& b) { b.recv(0, b.output().slice()); };
  EXPECT_EQ(
      pair(send3, recv4),
      "rank 1 channel 0 step 0 (recv from 0): a message of 3 elements (step 0 of rank 0) comes "
      "where 4 are expected");
  EXPECT_THAT(pair([](Builder& b) { b.signal(1); }, recv4),
              HasSubstr("a signal (step 0 of rank 0) comes where data is expected"));
  EXPECT_THAT(pair(send3, [](Builder& b) { b.wait(0); }),
              HasSubstr("comes where a signal is expected"));
  EXPECT_EQ(pair(send3, [](Builder&) {}),
            "rank 0 channel 0 step 0: a message of 3 elements to rank 1 is never received");
  EXPECT_THAT(pair([](Builder&) {}, recv4),
              HasSubstr("deadlock: rank 1 channel 0 step 0 (recv from 0) waits for a message that "
                        "never comes"));
  // A message on another channel is another message.
  EXPECT_THAT(pair([](Builder& b) { b.channel(1).send(1, b.input().slice()); }, recv4),
              HasSubstr("deadlock"));
}

// Both send `window` + 1 messages before they receive.
TEST(Checker, FindsDeadlockOfFullWindows) {
  const auto exchange = [](int messages, int window) {
    Sample sample = make_sample("full", request_of(Collective::all_to_all, 20), 2, [&](Builder& b) {
      const uint64_t me = static_cast<uint64_t>(b.rank());
      const Region from = b.input().block(1 - me, 2), to = b.output().block(1 - me, 2);
      b.copy(b.input().block(me, 2).slice(), b.output().block(me, 2).slice());
      const uint64_t n = static_cast<uint64_t>(messages);
      for (uint64_t i = 0; i < n; i++) b.send(1 - b.rank(), from.block(i, n).slice());
      for (uint64_t i = 0; i < n; i++) b.recv(1 - b.rank(), to.block(i, n).slice());
    });
    sample.options.send_window = window;
    return verdict(sample);
  };
  EXPECT_EQ(exchange(4, 4), "ok");
  EXPECT_THAT(exchange(5, 4), HasSubstr("because 4 messages to rank 1 are in flight"));
  EXPECT_EQ(exchange(kSendWindow, kSendWindow), "ok");
  EXPECT_THAT(exchange(kSendWindow + 1, kSendWindow), HasSubstr("deadlock"));
}

// Both overwrite what they send before the other side may have taken it: each waits for the other.
TEST(Checker, FindsDeadlockOfOverwrittenSends) {
  const Sample sample =
      make_sample("overwrite", request_of(Collective::all_reduce, 4, true), 2, [](Builder& b) {
        b.send(1 - b.rank(), b.input().slice(), Pre::yes);
        b.recv_reduce(1 - b.rank(), b.input().slice(), b.output().slice(), Pre::yes, Post::yes);
      });
  EXPECT_THAT(verdict(sample),
              HasSubstr("waits for ever to overwrite what the send of step 0 still reads"));
}

TEST(Checker, WaitsToOverwriteASendOfAnotherChannel) {
  // Rank 0 sends scratch on channel 1, signals channel 0, and channel 0 writes there at once: the
  // write waits for the message, whose content is the old one.
  const auto write = [](bool signal) {
    return [signal](Builder& b) {
      const Region s = b.scratch(4);
      if (b.rank() == 0) {
        b.channel(1).copy(b.input().slice(), s.slice());
        b.channel(1).send(1, s.slice());
        if (signal) b.signal_channel(0), b.channel(0).wait_channel(1);
        b.channel(0).copy(b.input().slice(), s.slice());
        b.channel(0).copy(s.slice(), b.output().slice());
      } else {
        b.channel(1).recv(0, b.output().slice());
      }
    };
  };
  const Request request = request_of(Collective::broadcast, 4);
  EXPECT_EQ(verdict(make_sample("ordered", request, 2, write(true))), "ok");
  EXPECT_THAT(verdict(make_sample("racing", request, 2, write(false))),
              HasSubstr("nothing orders the two"));
}

/// Rank 1 takes rank 0's input through rank 0's scratch, with or without each of the signals.
Sample pull(bool ready, bool done) {
  Sample sample = make_sample("pull", request_of(Collective::broadcast, 4), 2, [&](Builder& b) {
    Slice theirs = b.scratch(4).slice();
    if (b.rank() == 0) {
      b.copy(b.input().slice(), theirs);
      b.copy(b.input().slice(), b.output().slice());
      if (ready) b.signal(1);
      if (done) b.wait(1);
    } else {
      theirs.owner = 0;
      if (ready) b.wait(0);
      b.copy(theirs, b.output().slice());
      if (done) b.signal(0);
    }
  });
  sample.options.load_store = [](int, int, Buffer) { return true; };
  return sample;
}

TEST(Checker, WantsPeersMemoryOrderedBySignals) {
  EXPECT_EQ(verdict(pull(true, true)), "ok");
  EXPECT_EQ(verdict(pull(true, false)),
            "rank 0 returns while rank 1 channel 0 may still read element 0 of its scratch");
  EXPECT_THAT(verdict(pull(false, true)), HasSubstr("nothing orders the two"));
  Sample apart = pull(true, true);
  apart.options.load_store = nullptr;
  EXPECT_EQ(verdict(apart),
            "rank 1 channel 0 step 1 (copy): rank 0's scratch cannot be reached by load and store");
}

// The executor shifts shared scratch from call to call, on all ranks by the same.
TEST(Checker, WantsScratchThatPeersReachToBeOfOneSize) {
  Sample sample = make_sample("pull", request_of(Collective::broadcast, 4), 2, [&](Builder& b) {
    Slice theirs = b.scratch(4).slice();
    if (b.rank() == 0) {
      b.copy(b.input().slice(), theirs);
      b.copy(b.input().slice(), b.output().slice());
      b.signal(1);
      b.wait(1);
    } else {
      b.scratch(1);
      theirs.owner = 0;
      b.wait(0);
      b.copy(theirs, b.output().slice());
      b.signal(0);
    }
  });
  sample.options.load_store = [](int, int, Buffer) { return true; };
  EXPECT_THAT(verdict(sample), HasSubstr("has not the size of rank 1's"));
}

TEST(Checker, WantsTheOwnerToHaveEnteredTheCall) {
  // Rank 0 pushes into rank 1's scratch without knowing that rank 1 is there.
  const auto push = [](bool invited) {
    Sample sample = make_sample("push", request_of(Collective::broadcast, 4), 2, [&](Builder& b) {
      Slice there = b.scratch(4).slice();
      if (b.rank() == 0) {
        b.copy(b.input().slice(), b.output().slice());
        there.owner = 1;
        if (invited) b.wait(1);
        b.copy(b.input().slice(), there);
        b.signal(1);
      } else {
        if (invited) b.signal(0);
        b.wait(0);
        b.copy(there, b.output().slice());
      }
    });
    sample.options.load_store = [](int, int, Buffer) { return true; };
    return verdict(sample);
  };
  EXPECT_EQ(push(true), "ok");
  EXPECT_THAT(push(false), HasSubstr("before rank 1 is known to have entered the call"));
}

// A peer writes over the source of a posted send: only the message's receiver can tell it is free.
TEST(Checker, WantsPeersToKnowThatASendIsOver) {
  const auto plan = [](bool receiver_tells) {
    Sample sample = make_sample("reuse", request_of(Collective::broadcast, 4), 3, [&](Builder& b) {
      Slice slot = b.scratch(4).slice();
      switch (b.rank()) {
        case 0:
          b.copy(b.input().slice(), b.output().slice());
          b.copy(b.input().slice(), slot);
          b.send(1, slot);
          b.signal(2);
          b.wait(2);
          break;
        case 1:
          b.recv(0, b.output().slice());
          if (receiver_tells) b.signal(2);
          break;
        default:
          b.wait(0);
          if (receiver_tells) b.wait(1);
          slot.owner = 0;
          b.copy(slot, b.output().slice());
          b.copy(b.output().slice(), slot);
          b.signal(0);
      }
    });
    sample.options.load_store = [](int, int, Buffer) { return true; };
    return verdict(sample);
  };
  EXPECT_EQ(plan(true), "ok");
  EXPECT_THAT(plan(false), HasSubstr("while rank 0 channel 0 may read it"));
}

TEST(Checker, RefusesWrongProgramsBeforeRunningThem) {
  const Request request = request_of(Collective::all_gather, 1);
  const auto broken = [&](const std::function<void(Program&)>& change) {
    Sample sample = ring_all_gather(2, 1);
    change(sample.programs[1]);
    return verdict(sample);
  };
  EXPECT_EQ(broken([](Program&) {}), "ok");
  EXPECT_THAT(broken([](Program& p) { p.rank = 0; }), HasSubstr("is for rank 0 of 2"));
  EXPECT_THAT(broken([](Program& p) { p.request.count = 2; }), HasSubstr("not for all_gather"));
  EXPECT_THAT(broken([](Program& p) { p.channels.clear(); }), HasSubstr("no channel"));
  EXPECT_THAT(broken([](Program& p) { p.channels[0].loops[0].step_count++; }),
              HasSubstr("its loops cover"));
  EXPECT_THAT(broken([](Program& p) { p.channels[0].steps[0].pre = true; }),
              HasSubstr("pre and post mean nothing"));
  EXPECT_THAT(broken([](Program& p) { p.channels[0].steps[1].peer = 7; }),
              HasSubstr("there is no rank 7"));
  EXPECT_THAT(broken([](Program& p) { p.channels[0].steps[1].verb = Verb::recv_reduce; }),
              HasSubstr("does not reduce"));
  EXPECT_THAT(check(request, 1,
                    [](int) -> Result<Program> { return Status(Code::unsupported, "not today"); })
                  .status()
                  .text(),
              HasSubstr("not today"));
}

}  // namespace
}  // namespace railccl::plan
