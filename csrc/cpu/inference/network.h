// A network made ready to run: its steps in each layout, and the memory that runs take.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "steps.h"

namespace lth_sparse::inference {

/// The steps of one layout, and the sizes of the buffers that they use in turn.
struct Plan {
  std::vector<std::unique_ptr<Step>> steps;
  std::vector<int64_t> operations;  // which one each step is of
  std::vector<int64_t> floats;      // of each buffer
};

class Network {
 public:
  Network(Description description, const Kernels& kernels, int threads);
  ~Network();

  const Description& description() const { return description_; }
  /// inputs[k]: [batch][channels][height][width]; outputs likewise. Several threads may call it at once.
  void run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs, int64_t batch, const Parallel& parallel);
  /// Seconds of each operation in such a run.
  std::vector<double> timed(const std::vector<const float*>& inputs, const std::vector<float*>& outputs, int64_t batch,
                            const Parallel& parallel);
  /// Of the buffers of one run, for images that come in groups, or one by one.
  int64_t bytes(bool of_images);

 private:
  class Buffers;
  struct Prepared {
    std::unique_ptr<Plan> plan;
    std::vector<std::unique_ptr<Buffers>> free;
  };

  Prepared& prepared(bool of_images);
  Plan planned(const Layout& layout) const;
  void run_group(bool of_images, const std::vector<const float*>& inputs, const std::vector<float*>& outputs, int64_t first,
                 int images, const Parallel& parallel, std::vector<double>* seconds);
  void run_all(const std::vector<const float*>& inputs, const std::vector<float*>& outputs, int64_t batch,
               const Parallel& parallel, std::vector<double>* seconds);

  Description description_;
  const Kernels& kernels_;
  int threads_;
  std::mutex mutex_;
  Prepared prepared_[2];
};

}  // namespace lth_sparse::inference
