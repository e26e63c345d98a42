// Thread blocks on a CPU: each thread is a fiber, run until it has to wait for others, and of those that can go on the
// next one is drawn at random, so that whatever is missing a barrier comes out wrong sooner or later.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace on_host {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = size_t{128} << 10;

/// A point of execution that can be left and returned to.
class Context {
 public:
  /// Begins `body` on a stack of its own; it must never return.
  void start(void (*body)()) {
    if (stack_ == nullptr) stack_ = static_cast<char*>(std::aligned_alloc(64, kStackBytes));
#if defined(__x86_64__)
    auto* top = reinterpret_cast<void**>(stack_ + kStackBytes);
    *--top = nullptr;                           // Calls find the stack as the ABI has it.
    *--top = reinterpret_cast<void*>(body);     // Where the first switch returns to.
    top -= 6;                                   // The registers that it restores.
    std::memset(top, 0, 6 * sizeof(void*));
    pointer_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = kStackBytes;
    makecontext(&context_, body, 0);
#endif
  }
  static void change(Context& from, Context& to);

 private:
  char* stack_ = nullptr;  // Kept for the next block: fibers last as long as the process.
#if defined(__x86_64__)
  void* pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
};

#if defined(__x86_64__)
extern "C" void lth_change_stack(void** from, void* to);
// Weak, as an inline function: every source has it.
asm(R"(
.weak lth_change_stack
.type lth_change_stack, @function
lth_change_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
inline void Context::change(Context& from, Context& to) { lth_change_stack(&from.pointer_, to.pointer_); }
#else
inline void Context::change(Context& from, Context& to) { swapcontext(&from.context_, &to.context_); }
#endif

/// Where threads wait for each other: the last one to come does what is to be done for all.
struct Meeting {
  std::vector<int> waiting;
  int arrived = 0;
};

/// A copy that is done when its thread waits for it, and not before.
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Thread {
  Context context;
  std::vector<std::vector<Copy>> copies{{}};  // The last group is still open.
  const void* operand = nullptr;              // Of a warp's operation.
};

/// One thread block at a time, and the thread of it that runs.
class Block {
 public:
  static Block& get() {
    static Block block;
    return block;
  }

  int index = 0, thread = 0, threads = 0;
  unsigned char* shared = nullptr;

  Thread& self() { return pool_[thread]; }
  Thread& lane(int lane) { return pool_[thread / kWarp * kWarp + lane]; }

  /// Waits for all `expected` threads of a meeting.
  void meet(Meeting& meeting, int expected, const std::function<void()>& action) {
    if (++meeting.arrived == expected) {
      action();
      meeting.arrived = 0;
      ready_.insert(ready_.end(), meeting.waiting.begin(), meeting.waiting.end());
      meeting.waiting.clear();
    } else {
      meeting.waiting.push_back(thread);
      leave();
    }
  }
  void meet_block() { meet(block_meeting_, threads, [] {}); }
  void meet_warp(const std::function<void()>& action) { meet(warp_meetings_[thread / kWarp], kWarp, action); }

  /// Ends the block with an error, from within a thread.
  void fail(const std::string& what) {
    if (error_.empty()) error_ = what;
    ready_.clear();
    leave();
  }

  /// Runs `body` on every thread of every block, blocks in random order.
  void run(int64_t blocks, int count, int shared_bytes, const std::function<void()>& body) {
    std::vector<int64_t> order(blocks);
    for (int64_t i = 0; i < blocks; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random_);
    for (const int64_t each : order) run_block(static_cast<int>(each), count, shared_bytes, body);
  }

 private:
  void run_block(int which, int count, int shared_bytes, const std::function<void()>& body) {
    index = which;
    threads = count;
    body_ = &body;
    error_.clear();
    // Exactly as much as was asked for, so that an address sanitizer sees what is beyond; full of NaN.
    const size_t bytes = (static_cast<size_t>(shared_bytes) + 15) / 16 * 16;
    shared = static_cast<unsigned char*>(std::aligned_alloc(16, bytes > 0 ? bytes : 16));
    std::memset(shared, 0xFF, bytes);
    if (static_cast<int>(pool_.size()) < count) pool_.resize(count);
    block_meeting_ = {};
    warp_meetings_.assign((count + kWarp - 1) / kWarp, {});
    ready_.clear();
    finished_ = 0;
    for (int i = 0; i < count; ++i) {
      pool_[i].copies.assign(1, {});
      pool_[i].context.start(&Block::enter);
      ready_.push_back(i);
    }
    while (!ready_.empty()) {
      const size_t drawn = random_() % ready_.size();
      thread = ready_[drawn];
      ready_[drawn] = ready_.back();
      ready_.pop_back();
      Context::change(scheduler_, pool_[thread].context);
    }
    std::free(shared);
    if (error_.empty() && finished_ != count)
      error_ = std::to_string(count - finished_) + " threads wait for others that do not come";
    if (!error_.empty()) throw std::runtime_error("thread block " + std::to_string(which) + ": " + error_);
  }

  static void enter() {
    Block& block = get();
    (*block.body_)();
    for (const auto& group : block.self().copies)
      if (!group.empty()) block.fail("a thread ended with copies that it did not wait for");
    ++block.finished_;
    block.leave();
    std::abort();  // Nobody returns to a thread that has ended.
  }

  void leave() { Context::change(pool_[thread].context, scheduler_); }

  Context scheduler_;
  std::vector<Thread> pool_;
  std::vector<int> ready_;
  Meeting block_meeting_;
  std::vector<Meeting> warp_meetings_;
  const std::function<void()>* body_ = nullptr;
  std::string error_;
  int finished_ = 0;
  std::mt19937 random_{1};
};

}  // namespace on_host
