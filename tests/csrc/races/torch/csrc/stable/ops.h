// What csrc/torch_threads.h calls of PyTorch, by threads of the standard library: ThreadSanitizer sees all of what orders them, where
// the barriers of PyTorch's OpenMP are not instrumented. The threads live on between calls, as PyTorch's do, for the kernels keep
// memory in them.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace torch::stable {

class Threads {
 public:
  explicit Threads(int64_t count) {
    for (int64_t number = 1; number < count; ++number) threads_.emplace_back([this, number] { serve(number); });
  }
  ~Threads() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    begins_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  int64_t count() const { return static_cast<int64_t>(threads_.size()) + 1; }

  /// Calls body(number) once for each thread; the one that asks is number 0.
  void run(const std::function<void(int64_t number)>& body) {
    {
      const std::lock_guard lock(mutex_);
      body_ = &body;
      working_ = count() - 1;
      ++call_;
    }
    begins_.notify_all();
    body(0);
    std::unique_lock lock(mutex_);
    ends_.wait(lock, [this] { return working_ == 0; });
  }

 private:
  void serve(int64_t number) {
    for (int64_t seen = 0;;) {
      std::unique_lock lock(mutex_);
      begins_.wait(lock, [&] { return over_ || call_ != seen; });
      if (over_) return;
      seen = call_;
      const auto& body = *body_;
      lock.unlock();
      body(number);
      lock.lock();
      if (--working_ == 0) ends_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable begins_, ends_;
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t call_ = 0, working_ = 0;
  bool over_ = false;
  std::vector<std::thread> threads_;
};

/// Those of the calling thread.
inline thread_local Threads* threads = nullptr;

inline int64_t get_num_threads() { return threads->count(); }

template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t, const Body& body) {
  const int64_t parts = std::min(end - begin, get_num_threads());
  threads->run([&](int64_t number) {
    if (number < parts) body(begin + (end - begin) * number / parts, begin + (end - begin) * (number + 1) / parts);
  });
}

}  // namespace torch::stable
